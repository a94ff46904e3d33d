internal import KVCodec
internal import KVCore
internal import KVTiers

/// Arena slots that an engine was lent to write blocks into.
struct SlotReservation {
  let slots: [HostSlot]
  /// In nanoseconds of `monotonicNanoseconds()`.
  let endsAt: UInt64
}

extension StoreState {
  /// Takes the slots of reservations back whose time is over.
  mutating func endReservations(now: UInt64) {
    for (id, reservation) in reservations where reservation.endsAt < now {
      reservations[id] = nil
      takeBack(reservation)
    }
  }

  func takeBack(_ reservation: SlotReservation) {
    for slot in reservation.slots {
      arena.endLoan(slot)
      dropHostSlot(slot)
    }
  }
}

extension StoreCore {
  /// Blocks moved under one pass of the state lock: a quarter of the arena, at most 16 MiB.
  func windowBlockCount(_ namespace: NamespaceCore) -> Int {
    let bytes = min(effectiveHostBytes / 4, 16 << 20)
    return max(1, min(256, bytes / namespace.layout.slotByteCount))
  }

  /// Waits for what `attempt` wants of the arena, and hurries the writer; nil when the limit comes first.
  func waitForRoom<Result>(
    _ limit: TransferLimit,
    _ attempt: (inout StoreState) -> Result?
  ) -> Result? {
    writer?.hurry()
    state.withLock { $0.arenaWaiterCount += 1 }
    defer { state.withLock { $0.arenaWaiterCount -= 1 } }
    while true {
      // A reservation that ends by itself wakes nobody.
      let nextEnd = state.withLock { state in
        state.endReservations(now: monotonicNanoseconds())
        return state.reservations.values.map(\.endsAt).min()
      }
      let until = [nextEnd.map { $0 &+ 1 }, limit.deadline].compactMap { $0 }.min()
      let outcome: Result?? = state.wait(until: until) { state in
        if limit.isCancelled { return .some(nil) }
        return attempt(&state).map { .some($0) }
      }
      if let outcome { return outcome }
      if let deadline = limit.deadline, monotonicNanoseconds() >= deadline { return nil }
    }
  }
}
