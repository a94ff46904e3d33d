public import KVCore

extension Namespace {
  /// The most and the least that a reservation may last when nothing else is said, in nanoseconds.
  public static let reservationNanosecondsDefault: UInt64 = 60_000_000_000

  /// Starts bringing the prompt's stored prefix from disk into RAM, in the background and as far as there is room.
  ///
  /// - Parameter prompt: a rest that fills no block is allowed.
  /// - Returns: how many leading blocks are stored, and how many of them it will read.
  /// - Throws: `StoreError`; `.busy` when too many prefetches are queued.
  @discardableResult
  public func prefetch(_ prompt: Prompt) throws(StoreError) -> (stored: Int, started: Int) {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    return try store.core.startPrefetch(core, prompt)
  }

  /// Lends stored blocks for reading where they lie in the arena, every byte from disk verified first.
  ///
  /// Views and reservations together hold half of the arena at most: then the blocks' outcome is `full`.
  ///
  /// - Parameters:
  ///   - prompt: whose blocks are meant.
  ///   - transfer: which of them, and the timeout; its spans are not looked at.
  /// - Returns: the view; release it soon.
  /// - Throws: `StoreError`.
  public func view(_ prompt: Prompt, _ transfer: Transfer) throws(StoreError) -> BlockView {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    let range = try core.range(of: transfer, in: prompt, checksSpans: false)
    var call = RestoreCall(store.core, core, prompt, range, to: .view, waitLimit(transfer))
    let (slots, result) = try call.lend()
    let view = BlockView(store.core, core, range, slots, result) { [weak store] view in
      store?.forget(view)
    }
    try store.remember(view)
    return view
  }

  /// Lends arena memory for the blocks of a transfer that are not stored yet, for the engine to write them there.
  ///
  /// - Parameters:
  ///   - prompt: whole blocks.
  ///   - transfer: which of them, all regions, and how long to wait for room; its spans are not looked at.
  ///   - durationNanoseconds: how long the reservation lasts; 0 is a minute, at most `leaseNanosecondsMax`.
  /// - Returns: the reservation, to be committed or aborted.
  /// - Throws: `StoreError`.
  public func reserve(
    _ prompt: Prompt,
    _ transfer: Transfer,
    durationNanoseconds: UInt64 = 0
  ) throws(StoreError) -> OffloadReservation {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    guard durationNanoseconds <= Self.leaseNanosecondsMax else {
      throw .invalidArgument(.leaseDuration)
    }
    try core.check(prompt, wholeBlocks: true)
    let range = try core.range(of: transfer, in: prompt, checksSpans: false)
    guard range.coversAllRegions else { throw .invalidArgument(.regionRange) }
    // Its blocks have the namespace's default life.
    var call = OffloadCall(
      store.core,
      core,
      prompt,
      core.range(ofBlocks: range.blocks),
      waitLimit(transfer),
      for: store.ledger
    )
    let reserved = try call.reserve(
      durationNanoseconds: durationNanoseconds == 0
        ? Self.reservationNanosecondsDefault : durationNanoseconds
    )
    let reservation = OffloadReservation(
      store.core,
      use,
      PromptCopy(prompt),
      reserved,
      store.ledger
    ) {
      [weak store] reservation in store?.forget(reservation)
    }
    try store.remember(reservation)
    return reservation
  }

  /// How long a call waits for arena room.
  func waitLimit(_ transfer: Transfer) -> TransferLimit {
    .after(
      transfer.timeoutNanoseconds == 0
        ? max(1, store.core.configuration.offloadTimeoutNanoseconds)
        : transfer.timeoutNanoseconds
    )
  }
}
