internal import KVCatalog
internal import KVCore
internal import KVIndex
internal import KVPolicy

/// The learning order of victims of a store that has one.
final class DensityEviction: Sendable {
  let learner = UseLearner()
  let victims: DensityVictims

  init(time: StoreTime) { victims = DensityVictims(learner, time: time) }
}

extension StoreCore {
  /// Notes that a prompt was asked for and a prefix of it found, which ends at `head`.
  func noteRequest(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    foundCount: Int,
    _ head: LeaseTable.Head?
  ) {
    guard let writer else { return }
    guard let density else {
      if let head { writer.enqueueTouch(namespace, head) }
      return
    }
    let use = density.learner.noteRequest(
      namespace.keys(of: prompt),
      residentCount: foundCount,
      timeNanoseconds: time.now()
    )
    if let head { writer.enqueueTouch(namespace, head, use: use) }
  }

  /// Notes that blocks of a prompt from `firstBlock` on are stored or on their way: the first of these outcomes that are `done`.
  func noteStored(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    firstBlock: Int,
    _ outcomes: [BlockOutcome]
  ) {
    guard let density, let writer, let words = unsafe prompt.words else { return }
    let doneCount = outcomes.prefix { $0 == .done }.count
    guard doneCount > 0 else { return }
    let blockCount = firstBlock + doneCount
    let keys = Array(namespace.keys(of: prompt).prefix(blockCount))
    let parts = density.learner.noteStored(keys, timeNanoseconds: time.now())
    let extra: ExtraBytesAccessor? =
      unsafe prompt.extra.isEmpty ? nil : { unsafe prompt.extraBytes(ofBlock: $0) }
    var segments: [IndexSegment] = []
    for part in parts {
      let head: LeaseTable.Head? = state.withLock { state in
        let match = unsafe state.index.match(
          namespace.id,
          words: words,
          blockCount: part.blockCount,
          extra: extra,
          touch: false,
          segments: &segments
        )
        return match.matchedBlockCount == part.blockCount ? state.head(at: match.location) : nil
      }
      if let head { writer.enqueueTouch(namespace, head, use: part.stamp) }
    }
  }
}
