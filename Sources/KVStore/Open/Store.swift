public import KVCore
internal import KVTiers

/// A persistent store of KV blocks: the façade.
///
/// Thread-safe. Several stores on one folder in one process share everything; several processes may have one folder open.
public final class Store: Sendable {
  package let core: StoreCore
  private let gate = CallGate()
  /// Started through this handle and not ended.
  let operations = Monitor(Operations())

  let lent = Monitor(Lent())

  struct Operations {
    var running: [ObjectIdentifier: TransferOperation] = [:]
    /// No more are started.
    var isClosed = false
  }

  /// Tells this handle's flush of this handle's blocks.
  let ledger = FlushLedger()

  private init(core: StoreCore) {
    self.core = core
    core.ledgers.withLock { $0.add(ledger) }
  }

  /// Opens the store in `configuration.path`, creating it when absent.
  ///
  /// Does not scan it: the cost is the same at every size.
  public static func open(_ configuration: StoreConfiguration) throws(StoreError) -> Store {
    try configuration.validate()
    return Store(core: try StoreRegistry.open(configuration))
  }

  /// Whether the process was forked since the store was opened: then every call throws `.forked`.
  public var isForked: Bool { core.isForked }

  /// Flushes, then closes.
  ///
  /// Operations that have not ended are cancelled first, views and reservations end; afterwards nothing touches the memory that was
  /// lent to them.
  /// The last close of the process ends its leases and threads. Throws `.busy` when that takes longer than the
  /// configuration allows: the rest is then done in the background.
  public func close() throws(StoreError) {
    guard !core.isForked else { throw .forked }
    guard gate.close() else { throw .closed }
    endOperations()
    endLoans()
    let deadline = KVCore.deadline(after: core.configuration.waitTimeoutNanoseconds)
    try BoundedCall.run(until: deadline) { [gate, core, ledger] () throws(StoreError) in
      // Calls of other threads finish first: they may wait for the writer, which ends below.
      gate.drain()
      try StoreRegistry.close(core, ledger)
    }
  }

  /// Waits until every offload that has returned is durable.
  ///
  /// - Parameter timeoutNanoseconds: 0 waits as long as it takes; else throws `.busy` when it is over.
  /// - Returns: what of this handle's blocks became durable and what was dropped since its last flush.
  /// - Throws: `StoreError`; why blocks could not be written, once. The next flush counts them.
  @discardableResult
  public func flush(timeoutNanoseconds: UInt64 = 0) throws(StoreError) -> FlushResult {
    var result = try flushTelling(timeoutNanoseconds: timeoutNanoseconds)
    guard let error = result.error else { return result }
    result.error = nil
    ledger.putBack(result)
    throw error
  }

  /// The same, with the reason why blocks could not be written beside their number.
  package func flushTelling(timeoutNanoseconds: UInt64) throws(StoreError) -> FlushResult {
    try enter()
    defer { leave() }
    return try core.flush(ledger, timeoutNanoseconds: timeoutNanoseconds)
  }

  /// Counters and sizes.
  ///
  /// Does not block on disk.
  public func statistics() throws(StoreError) -> StoreStatistics {
    try enter()
    defer { leave() }
    return core.statistics()
  }

  /// The arena: page-aligned memory that an engine may pin or register with its device.
  ///
  /// Mapped until the last close of the process. What lies in it is looked at through views only.
  @unsafe public func hostMemory() throws(StoreError) -> UnsafeMutableRawBufferPointer {
    try enter()
    defer { leave() }
    return unsafe core.hostMemoryBase.bytes
  }

  /// Opens the namespace of this identity, creating it when absent.
  ///
  /// Limits that differ from the namespace's are changed, durably; a read-only store leaves them.
  public func openNamespace(
    _ identity: NamespaceIdentity,
    limits: NamespaceLimits = NamespaceLimits()
  ) throws(StoreError) -> Namespace {
    try enter()
    defer { leave() }
    return Namespace(store: self, try core.openNamespace(identity, limits))
  }

  /// Removes all blocks of a namespace by its number; see `Namespace.purge`.
  ///
  /// An unknown number is an invalid argument.
  public func purgeNamespace(_ id: NamespaceID) throws(StoreError) -> Int {
    try enter()
    defer { leave() }
    guard !core.configuration.readOnly else { throw .readOnly }
    return try core.purge(id, erases: true)
  }

  /// Ends a lease; false when there never was one of that id.
  public func releaseLease(_ lease: UInt64) throws(StoreError) -> Bool {
    try enter()
    defer { leave() }
    return core.state.withLock { state in
      state.fullness.noteRelease()
      return state.leases.release(lease)
    }
  }

  /// Ends a pin, whichever process made it; false when there is none of that number.
  public func unpin(_ pin: UInt64) throws(StoreError) -> Bool {
    try enter()
    defer { leave() }
    return try core.unpin(pin)
  }

  /// Removes what has come to its end, as the store does by itself from time to time; returns the number of blocks.
  @discardableResult
  public func reclaimExpired() throws(StoreError) -> Int {
    try enter()
    defer { leave() }
    return try core.reclaimExpired()
  }

  /// Lets a lease end so many nanoseconds from now; false when it has ended already.
  public func extendLease(_ lease: UInt64, nanoseconds: UInt64) throws(StoreError) -> Bool {
    try enter()
    defer { leave() }
    let duration = nanoseconds == 0 ? LeaseTable.durationDefault : nanoseconds
    let now = core.configuration.clock.bootTimeNanoseconds()
    return core.state.withLock { $0.leases.extend(lease, now: now, duration: duration) }
  }

  /// A call begins; `leave` must follow unless this throws.
  package func enter() throws(StoreError) {
    guard !core.isForked else { throw .forked }
    guard gate.enter() else { throw .closed }
  }

  package func leave() { gate.leave() }
}
