internal import Glibc
public import KVCore
internal import KVTiers

/// The device tier: slots in the memory of a GPU or another device, and sequences of tokens with tables of the slots of their blocks.
///
/// Thread-safe; one call at a time changes a sequence. Slots are copies that belong to this process and start empty. The engine writes
/// the KV of new tokens into the slots itself; the store says which slots, moves blocks between them and its other tiers, and shares those of
/// equal prefixes.
public final class Device: Sendable {
  let namespace: Namespace
  let medium: any DeviceMedium
  let blockByteCount: Int
  let state: Monitor<State>

  struct State {
    var tables: BlockTables
    /// Copies under way, those that were given up at a deadline included.
    var copyCount = 0
    var isDetached = false
    /// What the meter was told.
    var slotsUsed = 0
    var slotsCached = 0
  }

  /// The simulated device, if that is what this is.
  public var simulated: SimulatedDevice? { medium as? SimulatedDevice }

  /// Whose blocks the slots hold.
  public var blocksOf: Namespace { namespace }

  /// Slots of the device.
  public var slotCount: Int { state.withLock { $0.tables.slotCount } }

  /// Bytes of a slot: those of a block's payload, region after region.
  public var slotByteCount: Int { blockByteCount }

  init(
    _ namespace: Namespace,
    slotCount: Int,
    medium: (any DeviceMedium)?
  ) throws(StoreError) {
    let identity = namespace.identity
    guard identity.identityMode == .tokens else { throw .invalidArgument(.wrongIdentityMode) }
    guard !identity.regionsAreVariable else { throw .invalidArgument(.regionByteCount) }
    guard slotCount > 0, slotCount <= Int(Int32.max) else {
      throw .invalidArgument(.deviceSlotCount)
    }
    blockByteCount = identity.regionByteCounts.reduce(0, +)
    guard !slotCount.multipliedReportingOverflow(by: blockByteCount).overflow else {
      throw .invalidArgument(.deviceSlotCount)
    }
    self.namespace = namespace
    if let medium {
      self.medium = medium
    } else {
      self.medium = try SimulatedDevice(slotCount: slotCount, slotByteCount: blockByteCount)
    }
    state = Monitor(
      State(tables: BlockTables(slotCount: slotCount, tokensPerBlock: identity.tokensPerBlock))
    )
    meter.add(slotCount, to: meter.slotCapacity)
  }

  deinit { detach() }

  var meter: DeviceMeter { namespace.store.core.deviceMeter }

  /// Whether it was attached through this handle of the store.
  package func belongs(to store: Store) -> Bool { namespace.belongs(to: store) }

  /// Gives the device up; its sequences end.
  ///
  /// - Returns: false while copies go on that a call did not wait for: the device is kept.
  @discardableResult
  public func detach() -> Bool {
    state.withLock { state in
      if state.isDetached { return true }
      guard state.copyCount == 0 else { return false }
      state.isDetached = true
      meter.add(-state.tables.slotCount, to: meter.slotCapacity)
      meter.add(-state.slotsUsed, to: meter.slotsUsed)
      meter.add(-state.slotsCached, to: meter.slotsCached)
      return true
    }
  }

  /// Runs `body` on the tables while the store is open.
  func change<Result>(
    _ body: (inout BlockTables) throws(BlockTablesError) -> Result
  ) throws(StoreError) -> Result {
    let store = namespace.store
    try store.enter()
    defer { store.leave() }
    do throws(BlockTablesError) {
      return try state.withLock { (state) throws(BlockTablesError) in
        guard !state.isDetached else { throw .unknownSequence }
        defer { note(&state) }
        return try body(&state.tables)
      }
    } catch {
      switch error {
      case .unknownSequence: throw .invalidArgument(.sequence)
      case .full: throw .full
      case .notEmpty: throw .invalidArgument(.sequenceNotEmpty)
      case .changed: throw .busy
      }
    }
  }

  /// Tells the meter what changed.
  func note(_ state: inout State) {
    guard !state.isDetached else { return }
    meter.add(state.tables.usedSlotCount - state.slotsUsed, to: meter.slotsUsed)
    meter.add(state.tables.cachedSlotCount - state.slotsCached, to: meter.slotsCached)
    state.slotsUsed = state.tables.usedSlotCount
    state.slotsCached = state.tables.cachedSlotCount
  }

  // MARK: Sequences

  /// An empty sequence; returns its number.
  public func createSequence() throws(StoreError) -> UInt64 {
    try change { (tables) throws(BlockTablesError) in tables.create() }
  }

  /// A sequence that begins as another one is: it shares all slots, and copies its last, partial block when one of the two grows.
  public func fork(_ sequence: UInt64) throws(StoreError) -> UInt64 {
    try change { (tables) throws(BlockTablesError) in try tables.fork(sequence) }
  }

  /// Ends a sequence; slots that no other has are free, or cached if their blocks are known to the store.
  public func free(_ sequence: UInt64) throws(StoreError) {
    try change { (tables) throws(BlockTablesError) in try tables.free(sequence) }
  }

  /// The slots of the sequence's blocks in their order; the last one may be partial.
  public func blockTable(_ sequence: UInt64) throws(StoreError) -> [Int] {
    try change { (tables) throws(BlockTablesError) in try tables.table(sequence) }
  }

  /// The sequence's tokens.
  public func tokens(_ sequence: UInt64) throws(StoreError) -> [UInt32] {
    try change { (tables) throws(BlockTablesError) in try tables.tokens(sequence) }
  }

  /// Makes room for tokens whose KV the engine is about to compute.
  ///
  /// A last block that other sequences have as well is copied to a slot of the sequence's own first. Either all of it is done or nothing.
  ///
  /// - Parameters:
  ///   - sequence: its number.
  ///   - tokens: at its end.
  ///   - timeoutNanoseconds: how long to wait for that copy; 0 = as offloads do.
  /// - Throws: `StoreError`; `.full` when too few slots are free, `.busy` at the deadline.
  public func append(
    _ sequence: UInt64,
    _ tokens: [UInt32],
    timeoutNanoseconds: UInt64 = 0
  ) throws(StoreError) {
    let growth = try change { (tables) throws(BlockTablesError) in
      try tables.prepareAppend(sequence, tokens)
    }
    if let copy = growth.copyOnWrite {
      let copies = [
        unsafe DeviceCopy(
          slot: copy.to,
          fromSlot: copy.from,
          hostMemory: nil,
          byteCount: blockByteCount
        )
      ]
      let isDone = try move(.withinDevice, copies, waitLimit(timeoutNanoseconds)) { [self] in
        state.withLock { state in
          state.tables.abort(growth)
          note(&state)
        }
      }
      guard isDone else { throw .busy }
      meter.add(1, to: meter.copiesOnWrite)
    }
    try change { (tables) throws(BlockTablesError) in try tables.commit(growth) }
  }

  // MARK: Copies

  /// Copies and waits; unless that is done in time, `giveUp` runs once nothing is being copied any more.
  ///
  /// - Returns: false at the deadline.
  /// - Throws: `.io` when the device failed, `.invalidArgument` when it was detached.
  func move(
    _ direction: DeviceDirection,
    _ copies: [DeviceCopy],
    _ limit: TransferLimit,
    giveUp: @escaping @Sendable () -> Void
  ) throws(StoreError) -> Bool {
    let isAttached = state.withLock { state in
      if !state.isDetached { state.copyCount += 1 }
      return !state.isDetached
    }
    guard isAttached else {
      giveUp()
      throw .invalidArgument(.sequence)
    }
    let completion = DeviceCompletion()
    medium.copy(direction, copies, completion)
    switch completion.wait(until: limit.deadline) {
    case true?:
      endCopy()
      let byteCount = copies.reduce(0) { $0 + $1.byteCount }
      if direction == .toDevice { meter.add(byteCount, to: meter.bytesIn) }
      if direction == .fromDevice { meter.add(byteCount, to: meter.bytesOut) }
      return true
    case false?:
      giveUp()
      endCopy()
      throw .io(.device, errno: EIO)
    case nil:
      // Keeps the device, the store and so the memory until then.
      completion.whenOver { [self] in
        giveUp()
        endCopy()
      }
      return false
    }
  }

  private func endCopy() { state.withLock { $0.copyCount -= 1 } }

  func waitLimit(_ timeoutNanoseconds: UInt64) -> TransferLimit {
    .after(
      timeoutNanoseconds == 0
        ? max(1, namespace.store.core.configuration.offloadTimeoutNanoseconds)
        : timeoutNanoseconds
    )
  }

  /// What is wrong with the bookkeeping, one line each.
  package func checkInvariants() -> [String] { state.withLock { $0.tables.checkInvariants() } }
}

extension Namespace {
  /// Attaches a device whose slots hold blocks of this namespace.
  ///
  /// - Parameters:
  ///   - slotCount: slots of the device's memory.
  ///   - medium: what copies; nil = the simulated device.
  /// - Returns: the device; it keeps the store's memory, so end it before the store is closed.
  /// - Throws: `StoreError`; `.invalidArgument` in digest mode and for regions of variable length.
  public func attachDevice(
    slotCount: Int,
    medium: (any DeviceMedium)? = nil
  ) throws(StoreError) -> Device {
    try store.enter()
    defer { store.leave() }
    return try Device(self, slotCount: slotCount, medium: medium)
  }
}
