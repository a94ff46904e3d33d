public import KVCore

extension Namespace {
  /// Starts a restore and returns; the spans and their memory stay borrowed until its end is reported.
  ///
  /// The prompt is copied. Restores that are started run a few at a time, in order; those that bring the same blocks
  /// layer by layer, each started before the one before it has ended, are read together.
  @unsafe public func startRestore(
    _ prompt: Prompt,
    _ transfer: Transfer
  ) throws(StoreError) -> TransferOperation {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    let range = try core.range(of: transfer, in: prompt)
    var limit = TransferLimit.after(transfer.timeoutNanoseconds)
    let operation = store.makeOperation(blockCount: range.blocks.count)
    limit.cancellation = operation.cancellation
    let part = RestoreSequence.Part(
      operation: operation,
      transfer: transfer,
      range: range,
      limit: limit
    )
    try store.start(operation) { store.core.submit(part, prompt, use) }
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
    let offload = {
      @Sendable [use, storeCore = store.core, ledger = store.ledger, operation] ()
        throws(StoreError) in
      var limit =
        ownLimit.isBounded
        ? ownLimit : .after(max(1, storeCore.configuration.offloadTimeoutNanoseconds))
      limit.cancellation = operation.cancellation
      return try copy.withPrompt { (prompt) throws(StoreError) in
        var call = OffloadCall(storeCore, use.core, prompt, range.range, limit, for: ledger)
        return try call.offload()
      }
    }
    try store.start(operation) {
      store.core.offloadQueue.submit { operation.run(offload) }
    }
    return operation
  }
}

/// A range whose spans the caller has lent until the operation's end is reported.
private struct BorrowedRange: @unchecked Sendable {
  let range: NamespaceCore.Range
  init(_ range: NamespaceCore.Range) { self.range = range }
}
