public import KVCore

extension Namespace {
  /// Starts a restore and returns; the spans and their memory stay borrowed until its end is reported.
  ///
  /// The prompt is copied. Restores that are started run a few at a time, in order.
  @unsafe public func startRestore(
    _ prompt: Prompt,
    _ transfer: Transfer
  ) throws(StoreError) -> TransferOperation {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    let range = BorrowedRange(try core.range(of: transfer, in: prompt))
    var limit = TransferLimit.after(transfer.timeoutNanoseconds)
    let operation = store.makeOperation(blockCount: range.range.blocks.count)
    limit.cancellation = operation.cancellation
    let copy = PromptCopy(prompt)
    try store.start(operation, on: store.core.restoreQueue) {
      [use, storeCore = store.core, limit] () throws(StoreError) in
      try copy.withPrompt { (prompt) throws(StoreError) in
        var call = RestoreCall(storeCore, use.core, prompt, range.range, to: .memory, limit)
        return try call.restore()
      }
    }
    return operation
  }

  /// Starts an offload and returns; the spans and their memory stay borrowed until its end is reported.
  ///
  /// The prompt is copied. Offloads that are started run one after the other, in order, so that each finds its parent.
  @unsafe public func startOffload(
    _ prompt: Prompt,
    _ transfer: Transfer
  ) throws(StoreError) -> TransferOperation {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    try core.check(prompt, wholeBlocks: true)
    let range = BorrowedRange(try core.range(of: transfer, in: prompt))
    try core.checkOffloadLengths(range.range)
    try store.core.checkWritable()
    // A timeout of its own counts from here; the store's from when its turn comes.
    let ownLimit = TransferLimit.after(transfer.timeoutNanoseconds)
    let operation = store.makeOperation(blockCount: range.range.blocks.count)
    let copy = PromptCopy(prompt)
    try store.start(operation, on: store.core.offloadQueue) {
      [use, storeCore = store.core, ledger = store.ledger, operation] () throws(StoreError) in
      var limit =
        ownLimit.isBounded
        ? ownLimit : .after(max(1, storeCore.configuration.offloadTimeoutNanoseconds))
      limit.cancellation = operation.cancellation
      return try copy.withPrompt { (prompt) throws(StoreError) in
        var call = OffloadCall(storeCore, use.core, prompt, range.range, limit, for: ledger)
        return try call.offload()
      }
    }
    return operation
  }
}

/// A range whose spans the caller has lent until the operation's end is reported.
private struct BorrowedRange: @unchecked Sendable {
  let range: NamespaceCore.Range
  init(_ range: NamespaceCore.Range) { self.range = range }
}
