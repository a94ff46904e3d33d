internal import KVCore
internal import KVTiers

/// Slots of the host tier that engines were lent to write blocks into, until they commit, abort, or their time is over.
///
/// Times are of `monotonicNanoseconds()`.
struct SlotReservations {
  private struct Reservation {
    let slots: [HostSlot]
    let endsAt: UInt64
  }

  private let host: HostTier
  private var reservations: [UInt64: Reservation] = [:]
  private var lastID: UInt64 = 0

  init(host: HostTier) { self.host = host }

  /// Notes lent slots; none of them needs no end.
  mutating func add(_ slots: [HostSlot], endsAt: UInt64) -> UInt64 {
    lastID += 1
    if !slots.isEmpty { reservations[lastID] = Reservation(slots: slots, endsAt: endsAt) }
    return lastID
  }

  /// The slots are the caller's to go on with; false when the reservation has ended.
  mutating func take(_ id: UInt64) -> Bool { reservations.removeValue(forKey: id) != nil }

  mutating func end(_ id: UInt64) {
    guard let reservation = reservations.removeValue(forKey: id) else { return }
    for slot in reservation.slots {
      host.endLoan(slot)
      host.drop(slot)
    }
  }

  /// Ends those whose time is over.
  mutating func endLapsed(now: UInt64) {
    for (id, reservation) in reservations where reservation.endsAt < now { end(id) }
  }

  /// When the next one ends by itself.
  var nextEnd: UInt64? { reservations.values.map(\.endsAt).min() }
}
