public import KVCore

/// How a match is done.
public struct MatchOptions: OptionSet, Sendable {
  /// The bits.
  public let rawValue: UInt32
  /// Wraps bits.
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// No lease, no trace in recency or counters.
  public static let peek = MatchOptions(rawValue: 1)
  /// Leave at least one token to compute.
  public static let leaveOneToken = MatchOptions(rawValue: 2)
  /// Where the stored prefix is shorter than the prompt, the remote tier may be asked for the rest.
  public static let remote = MatchOptions(rawValue: 4)
}

/// The blocks of one identity in a store.
///
/// Thread-safe.
public final class Namespace: Sendable {
  package let store: Store
  package var core: NamespaceCore { use.core }
  /// Of a namespace of side sections: the one that they stand beside.
  var owner: NamespaceCore? { ownerUse?.core }
  let use: NamespaceUse
  private let ownerUse: NamespaceUse?

  /// The longest that a lease may last.
  public static let leaseNanosecondsMax = LeaseTable.durationMax

  init(store: Store, _ use: NamespaceUse, beside owner: NamespaceUse? = nil) {
    self.store = store
    self.use = use
    ownerUse = owner
  }

  /// Whether it was opened through this handle.
  package func belongs(to store: Store) -> Bool { self.store === store }

  /// Number of the namespace in its store.
  public var id: NamespaceID { core.id }

  /// What its blocks have in common.
  public var identity: NamespaceIdentity { core.identity }

  /// Of side sections: what the blocks have in common that they stand beside.
  public var ownerIdentity: NamespaceIdentity? { owner?.identity }

  /// How its prompts are written: what a short call needs of the identity, which is long to copy.
  package var promptForm: PromptForm { core.promptForm }

  /// `promptForm` of the namespace that side sections stand beside.
  package var ownerPromptForm: PromptForm? { owner?.promptForm }

  /// The chained keys of the prompt's full blocks.
  ///
  /// Does not look at the store.
  public func blockKeys(_ prompt: Prompt) throws(StoreError) -> [BlockKey] {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    return core.keys(of: prompt)
  }

  /// The longest stored prefix of the prompt, and a lease on it.
  ///
  /// - Parameters:
  ///   - prompt: from its first token on; a rest that fills no block is allowed.
  ///   - options: peek, and whether a token is left to compute.
  ///   - leaseNanoseconds: 0 = a minute; at most `leaseNanosecondsMax`.
  /// - Returns: counts, and the lease.
  /// - Throws: `StoreError`.
  public func match(
    _ prompt: Prompt,
    options: MatchOptions = [],
    leaseNanoseconds: UInt64 = 0
  ) throws(StoreError) -> MatchResult {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    return try store.core.match(core, prompt, options: options, leaseNanoseconds: leaseNanoseconds)
  }

  /// Copies stored blocks into the caller's memory, every byte from disk verified first.
  ///
  /// With a timeout nothing touches that memory after the call has returned, however long a read takes.
  public func restore(_ prompt: Prompt, _ transfer: Transfer) throws(StoreError) -> TransferResult {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    let range = try core.range(of: transfer, in: prompt)
    let limit = TransferLimit.after(transfer.timeoutNanoseconds)
    var call = RestoreCall(store.core, core, prompt, range, to: .memory, limit)
    return try call.restore()
  }

  /// Takes blocks into the store.
  ///
  /// Returns when their bytes are in the arena; `Store.flush` makes them durable.
  public func offload(_ prompt: Prompt, _ transfer: Transfer) throws(StoreError) -> TransferResult {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    try core.check(prompt, wholeBlocks: true)
    let range = try core.range(of: transfer, in: prompt)
    try core.checkOffloadLengths(range)
    let start = monotonicNanoseconds()
    var call = OffloadCall(
      store.core,
      core,
      prompt,
      range,
      waitLimit(transfer),
      for: store.ledger
    )
    let result = try call.offload()
    let taken = monotonicNanoseconds() - start
    store.core.offloadTimes.withLock { $0.add(taken) }
    return result
  }

  /// Records a use of the longest stored prefix; returns its length in blocks.
  ///
  /// Its blocks with an idle TTL are kept for `keepNanoseconds` at least.
  public func touch(_ prompt: Prompt, keepNanoseconds: UInt64 = 0) throws(StoreError) -> Int {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    try core.check(prompt, wholeBlocks: false)
    return try store.core.touch(core, prompt, keepNanoseconds: keepNanoseconds)
  }

  /// Pins the longest stored prefix: nothing evicts it and no idle life of it ends before the pin does.
  ///
  /// The pin is durable and belongs to no process; an absolute end and `forget` are stronger.
  ///
  /// - Parameters:
  ///   - prompt: from its first token on.
  ///   - nanoseconds: at most `pinNanosecondsMax`.
  /// - Returns: what `Store.unpin` takes, and the length of the prefix in blocks; nil when nothing is stored.
  /// - Throws: `StoreError`; `.full` when there are too many pins.
  public func pin(
    _ prompt: Prompt,
    nanoseconds: UInt64
  ) throws(StoreError) -> (id: UInt64, blockCount: Int)? {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    guard nanoseconds > 0, nanoseconds <= Self.pinNanosecondsMax else {
      throw .invalidArgument(.pinDuration)
    }
    try core.check(prompt, wholeBlocks: false)
    return try store.core.pin(core, prompt, nanoseconds: nanoseconds)
  }

  /// The longest that a pin may last: 90 days.
  public static let pinNanosecondsMax: UInt64 = 90 * 86_400 * 1_000_000_000

  /// Removes the prompt's last full block and all below it, durably; everything when the prompt is empty.
  public func forget(_ prompt: Prompt) throws(StoreError) -> Int {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    try core.check(prompt, wholeBlocks: false)
    return try store.core.forget(core, prompt)
  }

  /// Removes the prompt's last full block and all below it, as `purge()` does a namespace.
  ///
  /// - Parameters:
  ///   - prompt: from its first token on.
  ///   - onlyTail: removes what the prompt's longest stored prefix shares with no other path instead: its blocks below the last one where another
  ///     branches off. Nothing, when others go on from its end.
  /// - Returns: how many blocks went.
  /// - Throws: `StoreError`.
  public func purge(_ prompt: Prompt, onlyTail: Bool = false) throws(StoreError) -> Int {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    try core.check(prompt, wholeBlocks: false)
    return try store.core.purge(core, prompt, onlyTail: onlyTail)
  }

  /// Removes all blocks, whoever holds leases on them.
  ///
  /// Durable when it returns: no look-up and no repair finds them. Their slots are then overwritten in the background;
  /// `StoreStatistics.slotsErasePending` says what is left of that.
  ///
  /// - Returns: how many blocks went.
  /// - Throws: `StoreError`.
  public func purge() throws(StoreError) -> Int {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    return try store.core.purge(core.id, erases: true)
  }
}
