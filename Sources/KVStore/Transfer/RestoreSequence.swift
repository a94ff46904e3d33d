internal import KVCore

/// Restores that were started one behind the other and bring the same blocks layer by layer.
///
/// What waits is restored together, in groups that grow: a slot is read in a few large pieces instead of one for each
/// layer, and the first layer does not wait for the others. All operations of a group end with it.
final class RestoreSequence: Sendable {
  /// One operation: some regions of the blocks.
  ///
  /// Unchecked: its spans are lent until the operation's end is reported.
  @safe struct Part: @unchecked Sendable {
    let operation: TransferOperation
    let transfer: Transfer
    let range: NamespaceCore.Range
    let limit: TransferLimit

    /// Whether one call can restore both.
    func isLike(_ other: Part) -> Bool {
      range.blocks == other.range.blocks
        && transfer.prefixBlockCount == other.transfer.prefixBlockCount
        && transfer.ignoresWindows == other.transfer.ignoresWindows
        && hasDeadline(near: other.limit.deadline)
    }

    private func hasDeadline(near other: UInt64?) -> Bool {
      guard let own = limit.deadline, let other else {
        return limit.deadline == nil && other == nil
      }
      return max(own, other) - min(own, other) <= RestoreSequence.deadlineNanosecondsMax
    }
  }

  private struct State {
    var waiting: [Part]
    var last: Part
    /// Bytes of a block in the next group; 0 before the first, which is one operation.
    var groupByteCount = 0
    /// Nobody takes what comes from now on.
    var isEnded = false
  }

  private let core: StoreCore
  private let use: NamespaceUse
  private let prompt: PromptCopy
  private let state: Monitor<State>

  /// Bytes of a block from which on a group is large enough: larger ones keep later layers waiting
  /// (docs/decisions/0015).
  private static let groupByteCountMax = 512 << 10
  /// And that a group behind the first has at least.
  private static let groupByteCountMin = 128 << 10
  /// Operations whose deadlines are further apart are not restored together.
  private static let deadlineNanosecondsMax: UInt64 = 100_000_000

  init(_ core: StoreCore, _ use: NamespaceUse, _ prompt: PromptCopy, _ first: Part) {
    self.core = core
    self.use = use
    self.prompt = prompt
    state = Monitor(State(waiting: [first], last: first))
  }

  /// Takes an operation that goes on where the last one ended; false when it does not, or comes too late.
  func join(_ part: Part, _ namespace: NamespaceCore, _ prompt: Prompt) -> Bool {
    state.withLock { state in
      guard !state.isEnded, use.core === namespace,
        part.range.regions.lowerBound == state.last.range.regions.upperBound,
        part.isLike(state.last), self.prompt.isEqual(to: prompt)
      else { return false }
      state.waiting.append(part)
      state.last = part
      return true
    }
  }

  /// Restores what has come and what comes meanwhile, in order.
  func run() {
    let copies = LayerCopies(core, use.core)
    defer { copies.finish() }
    while let group = takeGroup() {
      // One by itself may be all that ever comes: it takes no room in the arena.
      copies.mayBegin = group.count > 1
      if group.count == 1 || !restoreTogether(group, copies) {
        for part in group where part.operation.begin() { restoreAlone(part, copies) }
      }
    }
  }

  /// The next operations that are restored together; nil when none waits: then none joins any more.
  private func takeGroup() -> [Part]? {
    state.withLock { state in
      guard !state.waiting.isEmpty else {
        state.isEnded = true
        return nil
      }
      var count = 0
      var byteCount = 0
      repeat {
        byteCount += use.core.identity.regionByteCounts[state.waiting[count].range.regions]
          .reduce(0, +)
        count += 1
      } while count < state.waiting.count && byteCount < state.groupByteCount
      state.groupByteCount = min(max(2 * byteCount, Self.groupByteCountMin), Self.groupByteCountMax)
      defer { state.waiting.removeFirst(count) }
      return Array(state.waiting[..<count])
    }
  }

  private func restoreAlone(_ part: Part, _ copies: LayerCopies) {
    part.operation.finish { () throws(StoreError) in
      try prompt.withPrompt { (prompt) throws(StoreError) in
        var call = RestoreCall(
          core,
          use.core,
          prompt,
          part.range,
          to: .memory,
          part.limit,
          copies: copies
        )
        return try call.restore()
      }
    }
  }

  /// One call for all of them; false when it did not bring everything: then each is to be begun and restored alone.
  private func restoreTogether(_ group: [Part], _ copies: LayerCopies) -> Bool {
    let begun = group.filter { $0.operation.begin() }
    let isDone = begun.count == group.count && restoreBegun(group, copies)
    // So that one that is cancelled does not wait for the others.
    if !isDone { for part in begun { part.operation.putBack() } }
    return isDone
  }

  private func restoreBegun(_ group: [Part], _ copies: LayerCopies) -> Bool {
    let cancellation = Cancellation()
    for part in group { part.limit.cancellation?.forward(to: cancellation) }
    defer { for part in group { part.limit.cancellation?.forward(to: nil) } }
    let deadline = group.compactMap(\.limit.deadline).min()
    let spans = JoinedSpans(group.map(\.range))
    var transfer = group[0].transfer
    transfer.firstRegion = spans.regions.lowerBound
    transfer.regionCount = spans.regions.count
    unsafe transfer.spans = unsafe spans.spans
    let result: TransferResult?
    do throws(StoreError) {
      result = try prompt.withPrompt { (prompt) throws(StoreError) in
        var call = RestoreCall(
          core,
          use.core,
          prompt,
          try use.core.range(of: transfer, in: prompt),
          to: .memory,
          TransferLimit(deadline: deadline, cancellation: cancellation),
          copies: copies
        )
        return try call.restoreWhole()
      }
    } catch {
      return false
    }
    guard var result else { return false }
    for part in group {
      result.byteCount = spans.returnLengths(part.range)
      part.operation.finish { result }
    }
    return true
  }
}

extension StoreCore {
  /// Queues a restore that was started, or lets it join those that it goes on from.
  func submit(_ part: RestoreSequence.Part, _ prompt: Prompt, _ use: NamespaceUse)
    -> ServicePool.Refusal?
  {
    let known = part.range.coversAllRegions ? [] : restoreSequences.withLock { $0 }
    if known.contains(where: { $0.join(part, use.core, prompt) }) { return nil }
    let sequence = RestoreSequence(self, use, PromptCopy(prompt), part)
    if !part.range.coversAllRegions { restoreSequences.withLock { $0.append(sequence) } }
    let refusal = restoreQueue.submit { [self] in
      sequence.run()
      forget(sequence)
    }
    if refusal != nil { forget(sequence) }
    return refusal
  }

  private func forget(_ sequence: RestoreSequence) {
    restoreSequences.withLock { $0.removeAll { $0 === sequence } }
  }
}
