internal import KVCatalog
internal import KVCore
internal import KVIndex

/// Pins: prefixes that stay until a time, whichever process is there.
extension StoreCore {
  /// Pins the longest stored prefix of the prompt, durably; nil when nothing is stored.
  func pin(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    nanoseconds: UInt64
  ) throws(StoreError) -> (id: UInt64, blockCount: Int)? {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    // Pending blocks have no position yet.
    let deadline = writerDeadline
    _ = try writer.perform(deadline: deadline) { 0 }
    let (blockCount, target) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: namespace.blockCount(of: prompt),
      touch: true
    ) { (state, prefix) in
      extendExpiry(namespace, prefix.segments, &state)
      return (prefix.blockCount, state.tree.target(at: prefix.location))
    }
    guard blockCount > 0, case .published(let position)? = target else { return nil }
    writer.enqueueTouch(namespace, .published(position))
    let id = try writer.perform(deadline: deadline) { [self] () throws(StoreError) in
      let id = try catalogWriter.commit { (transaction) throws(CatalogError) in
        try addPin(transaction, namespace.id, position, nanoseconds)
      }
      return Int(clamping: id ?? 0)
    }
    return id == 0 ? nil : (UInt64(id), blockCount)
  }

  func addPin(
    _ transaction: WriteTransaction,
    _ namespace: NamespaceID,
    _ pathEnd: BlockPosition,
    _ nanoseconds: UInt64
  ) throws(CatalogError) -> UInt64? {
    guard try transaction.hasRoomForPin(in: namespace) else { throw .mapFull }
    let end = time.now().advanced(by: nanoseconds)
    return try transaction.pin(namespace, pathEnd: pathEnd, until: end)
  }

  /// Ends a pin of any process; false when there is none of that number.
  func unpin(_ id: UInt64) throws(StoreError) -> Bool {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    let found = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      let pin = try catalogWriter.commit { (transaction) throws(CatalogError) in
        try transaction.unpin(id)
      }
      if let pin { try refreshDeadlines(pin) }
      return pin == nil ? 0 : 1
    }
    state.withLock { $0.fullness.noteRelease() }
    return found == 1
  }

  /// What the pin lent to the index's entries goes: they live as long as the catalog says.
  private func refreshDeadlines(_ pin: PinRow) throws(StoreError) {
    for end in pin.path {
      let deadlines = try catalogRead { (transaction) throws(CatalogError) in
        try transaction.runDeadlines(pin.namespace, end.run, from: 0, now: time.now())
      }
      state.withLock { state in
        state.tree.setIdleDeadlines(pin.namespace, downTo: end, deadlines.deadline(at:))
      }
    }
  }
}
