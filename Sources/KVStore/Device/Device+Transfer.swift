internal import KVCodec
public import KVCore
internal import KVTiers

/// Blocks between the device's slots and the store.
extension Device {
  /// What a transfer of a sequence did.
  public struct TransferResult: Sendable, Equatable {
    /// Leading blocks that are where they were asked for.
    public var doneBlockCount = 0
    /// Restore: blocks that the device had already, shared with other sequences or cached.
    public var deviceBlockCount = 0
    /// Restore: copied from RAM.
    ///
    /// Offload: taken now.
    public var hostBlockCount = 0
    /// Restore: read from disk.
    ///
    /// Offload: stored already.
    public var diskBlockCount = 0
    /// Bytes copied to or from the device.
    public var byteCount = 0
    /// Why it ended: `done`, or what the next block met.
    public var end = BlockOutcome.done
  }

  // MARK: Restore

  /// Lets an empty sequence begin with the longest stored prefix of the prompt, in slots of the device.
  ///
  /// Blocks that the device has already are shared; the others come from the host tier or the disk, every byte verified on its way.
  ///
  /// - Parameters:
  ///   - sequence: an empty one.
  ///   - prompt: from its first token on; a rest that fills no block is left to `append`.
  ///   - timeoutNanoseconds: 0 = as offloads wait.
  /// - Returns: the counts; `end` is `full` when too few slots are free, `busy` at the deadline, `miss` where the stored prefix ends.
  /// - Throws: `StoreError`; `.invalidArgument` when the sequence is not empty.
  public func restore(
    _ sequence: UInt64,
    _ prompt: Prompt,
    timeoutNanoseconds: UInt64 = 0
  ) throws(StoreError) -> TransferResult {
    let limit = waitLimit(timeoutNanoseconds)
    let core = namespace.core
    try core.check(prompt, wholeBlocks: false)
    guard unsafe prompt.extra.allSatisfy({ unsafe $0.isEmpty }) else {
      throw .invalidArgument(.extraCount)
    }
    let blockCount = core.blockCount(of: prompt)
    let keys = core.keys(of: prompt)
    let tokens = words(of: prompt, blockCount * core.wordsPerBlock)
    var result = TransferResult()
    result.deviceBlockCount = try change { (tables) throws(BlockTablesError) in
      try tables.share(sequence, tokens, keys: keys)
    }
    result.doneBlockCount = result.deviceBlockCount
    meter.add(result.deviceBlockCount, to: meter.blocksShared)
    let windowCount = namespace.store.core.windowBlockCount(core)
    while result.doneBlockCount < blockCount, result.end == .done {
      let first = result.doneBlockCount
      try restoreWindow(
        sequence,
        prompt,
        first..<min(first + windowCount, blockCount),
        tokens,
        limit,
        &result
      )
    }
    let labels = Array(keys[..<result.doneBlockCount])
    try change { (tables) throws(BlockTablesError) in try tables.label(sequence, keys: labels) }
    return result
  }

  private func restoreWindow(
    _ sequence: UInt64,
    _ prompt: Prompt,
    _ window: Range<Int>,
    _ tokens: [UInt32],
    _ limit: TransferLimit,
    _ result: inout TransferResult
  ) throws(StoreError) {
    let store = namespace.store
    try store.enter()
    defer { store.leave() }
    let core = namespace.core
    let range = core.range(ofBlocks: window)
    // Loans of the device's own: the close of the store's handle does not end them while they are copied from.
    var call = RestoreCall(store.core, core, prompt, range, to: .view, limit)
    let (slots, lent) = try call.lend()
    let giveBack: @Sendable () -> Void = { store.core.endLoans(slots) }
    guard !slots.isEmpty else {
      result.end = lent.firstProblem ?? .miss
      return
    }
    let growth: BlockTables.Growth
    do throws(StoreError) {
      let first = window.lowerBound * core.wordsPerBlock
      let added = Array(tokens[first..<first + slots.count * core.wordsPerBlock])
      growth = try change { (tables) throws(BlockTablesError) in
        try tables.prepareAppend(sequence, added)
      }
    } catch {
      giveBack()
      guard error == .full else { throw error }
      result.end = .full
      return
    }
    let copies = copies(growth.addedSlots, slots)
    let isDone = try move(.toDevice, copies, limit) { [self] in
      state.withLock { state in
        state.tables.abort(growth)
        note(&state)
      }
      giveBack()
    }
    guard isDone else {
      result.end = .busy
      return
    }
    giveBack()
    try change { (tables) throws(BlockTablesError) in try tables.commit(growth) }
    result.doneBlockCount += slots.count
    result.hostBlockCount += lent.hostBlockCount
    result.diskBlockCount += lent.diskBlockCount
    result.byteCount += slots.count * blockByteCount
    if slots.count < window.count { result.end = lent.firstProblem ?? .miss }
  }

  // MARK: Offload

  /// Stores the sequence's full blocks out of the device's slots; those that are stored already are not copied.
  ///
  /// The engine has written them. From then on other sequences share them.
  ///
  /// - Parameters:
  ///   - sequence: its number.
  ///   - timeoutNanoseconds: 0 = as offloads wait.
  /// - Returns: the counts; durable after the next flush.
  /// - Throws: `StoreError`.
  public func offload(
    _ sequence: UInt64,
    timeoutNanoseconds: UInt64 = 0
  ) throws(StoreError) -> TransferResult {
    guard !namespace.store.core.configuration.readOnly else { throw .readOnly }
    let limit = waitLimit(timeoutNanoseconds)
    let core = namespace.core
    let (tokens, slots) = try change { (tables) throws(BlockTablesError) in
      (try tables.tokens(sequence), try tables.table(sequence))
    }
    let blockCount = tokens.count / core.wordsPerBlock
    let whole = Array(tokens[..<(blockCount * core.wordsPerBlock)])
    guard blockCount > 0 else { return TransferResult() }
    return try Prompt.with(whole) { (prompt) throws(StoreError) in
      var result = TransferResult()
      let windowCount = namespace.store.core.windowBlockCount(core)
      while result.doneBlockCount < blockCount, result.end == .done {
        let first = result.doneBlockCount
        let window = first..<min(first + windowCount, blockCount)
        try offloadWindow(prompt, window, slots, limit, &result)
      }
      let labels = Array(core.keys(of: prompt)[..<result.doneBlockCount])
      try change { (tables) throws(BlockTablesError) in try tables.label(sequence, keys: labels) }
      return result
    }
  }

  private func offloadWindow(
    _ prompt: Prompt,
    _ window: Range<Int>,
    _ slots: [Int],
    _ limit: TransferLimit,
    _ result: inout TransferResult
  ) throws(StoreError) {
    let store = namespace.store
    try store.enter()
    defer { store.leave() }
    let core = namespace.core
    let range = core.range(ofBlocks: window)
    // Without an end of its own: nobody else gets these slots while the device writes to them.
    var call = OffloadCall(store.core, core, prompt, range, limit, for: store.ledger)
    let reserved = try call.reserve(durationNanoseconds: .max)
    result.diskBlockCount += reserved.result.diskBlockCount
    guard let firstBlock = reserved.incoming.first?.link.block else {
      store.core.endReservation(reserved.id)
      result.doneBlockCount += reserved.result.doneBlockCount
      if reserved.result.doneBlockCount < window.count {
        result.end = reserved.result.firstProblem ?? .busy
      }
      return
    }
    let held = Array(slots[firstBlock..<firstBlock + reserved.incoming.count])
    try change { (tables) throws(BlockTablesError) in tables.hold(held) }
    let letGo: @Sendable () -> Void = { [self] in
      state.withLock { state in
        state.tables.letGo(held)
        note(&state)
      }
    }
    let copies = copies(held, reserved.incoming.map(\.hostSlot))
    let isDone = try move(.fromDevice, copies, limit) {
      store.core.endReservation(reserved.id)
      letGo()
    }
    guard isDone else {
      result.doneBlockCount = firstBlock
      result.end = .busy
      return
    }
    letGo()
    let lengths = reserved.incoming.flatMap { _ in core.identity.regionByteCounts }
    let stored = store.core.commit(reserved, lengths, core, prompt, store.ledger)
    result.doneBlockCount = firstBlock + stored.doneBlockCount
    result.hostBlockCount += stored.hostBlockCount
    result.byteCount += copies.count * blockByteCount
    if result.doneBlockCount < window.upperBound {
      result.end = stored.firstProblem ?? reserved.result.firstProblem ?? .busy
    }
  }

  /// Between slots of the device and the payloads of host slots.
  private func copies(_ slots: [Int], _ hostSlots: [HostSlot]) -> [DeviceCopy] {
    let headerByteCount = namespace.core.layout.headerByteCount
    return zip(slots, hostSlots).map { slot, hostSlot in
      unsafe DeviceCopy(
        slot: slot,
        fromSlot: slot,
        hostMemory: namespace.store.core.hostMemory(of: hostSlot) + headerByteCount,
        byteCount: blockByteCount
      )
    }
  }

  private func words(of prompt: Prompt, _ count: Int) -> [UInt32] {
    guard let words = unsafe prompt.words else { return [] }
    return unsafe Array(UnsafeBufferPointer(start: words, count: count))
  }
}
