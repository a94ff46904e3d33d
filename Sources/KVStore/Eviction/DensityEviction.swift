internal import KVCore
internal import KVPolicy

/// The learning order of victims of a store that has one.
///
/// Belongs to the writer's thread: uses are learned in the order in which they were queued, before the writer acts on them.
final class DensityEviction: @unchecked Sendable {
  // Unchecked: the writer's thread alone, or whoever closes the store after it.
  private let learner = UseLearner()
  let victims: DensityVictims
  private let time: StoreTime

  /// Where the repeated parts of the last requests end, by their stamps: blocks that come later stamp them anew.
  private var repeatedEnds: [UInt64: LeaseTable.Target] = [:]
  private static let repeatedEndCountMax = 1 << 12
  /// Of which nothing was learned yet.
  private var chain: Chain?

  init(time: StoreTime) {
    victims = DensityVictims(learner, time: time)
    self.time = time
  }

  /// Blocks on their way that go on from each other.
  private struct Chain {
    let namespace: NamespaceCore
    let parentKey: UInt64?
    let parentTarget: LeaseTable.Target
    /// Blocks from the root to the parent.
    let depth: Int
    var keys: [UInt64] = []
    var tickets: [UInt64] = []

    init(_ block: PendingBlock) {
      namespace = block.namespace
      parentKey = block.depth > 0 ? block.parentKey.low : nil
      parentTarget = block.parent
      depth = block.depth
      append(block)
    }

    mutating func append(_ block: PendingBlock) {
      keys.append(block.blockKey.low)
      tickets.append(block.ticket)
    }

    func isContinued(by block: PendingBlock) -> Bool {
      block.namespace === namespace && block.depth == depth + keys.count
        && block.parentKey.low == keys.last
    }

    /// Of the block that is so many blocks from the root; nil above the parent.
    func target(at blockCount: Int) -> LeaseTable.Target? {
      if blockCount == depth { return depth > 0 ? parentTarget : nil }
      let index = blockCount - depth - 1
      return tickets.indices.contains(index) ? .pending(ticket: tickets[index]) : nil
    }
  }

  // MARK: Learning

  /// Learns of the uses that are among these operations; returns them with what was learned.
  ///
  /// The blocks of one call may come in several pieces: they are one use, of which is learned when they are to be committed.
  func learn(
    _ operations: [WriterOperation],
    willCommit: Bool,
    _ core: StoreCore
  ) -> [WriterOperation] {
    var learned: [WriterOperation] = []
    learned.reserveCapacity(operations.count + 3)
    for operation in operations {
      switch operation {
      case .publish(let block):
        if chain?.isContinued(by: block) == true {
          chain?.append(block)
        } else {
          learn(&chain, into: &learned)
          chain = Chain(block)
        }
        learned.append(operation)
      case .touch(let namespace, let target, .noted(let use)):
        if use.isRequest {
          learn(&chain, into: &learned)
          learned.append(.touch(namespace, target, use: learn(use, namespace, target, core)))
        } else if chain?.keys.last != use.key {
          let stamp = learner.stamp(ofEnd: use.key)
          learned.append(.touch(namespace, target, use: stamp.map { .learned($0) } ?? .unknown))
        }
      case .touch, .extend, .renew, .call: learned.append(operation)
      }
    }
    if willCommit { learn(&chain, into: &learned) }
    return learned
  }

  private func learn(
    _ use: NotedUse,
    _ namespace: NamespaceCore,
    _ target: LeaseTable.Target,
    _ core: StoreCore
  ) -> PathUse {
    var found = UseHistory.Found(key: use.key, blockCount: use.blockCount)
    if learner.stamp(ofEnd: use.key) == nil {
      let keys = core.pathKeys(namespace, to: target)
      if keys.count == use.blockCount { found.path = keys[...] }
    }
    learner.advance(to: use.timeMilliseconds)
    let stamp = learner.note(found).repeatedStamp
    if repeatedEnds.count >= Self.repeatedEndCountMax {
      let newest = repeatedEnds.keys.max() ?? 0
      let kept = UInt64(Self.repeatedEndCountMax)
      repeatedEnds = repeatedEnds.filter { $0.key + kept > newest }
    }
    repeatedEnds[stamp] = target
    return .learned(stamp)
  }

  /// Blocks are on their way: the ends of the parts of their request get stamps, the tail first.
  private func learn(_ chain: inout Chain?, into learned: inout [WriterOperation]) {
    guard let blocks = chain else { return }
    chain = nil
    learner.advance(to: time.milliseconds())
    let parts = learner.noteStored(
      blocks.keys[...],
      after: blocks.parentKey,
      depth: blocks.depth
    )
    victims.noteStored(
      blocks.keys.count,
      uses: [parts.lastStamp, parts.newStamp, parts.repeatedStamp]
    )
    let end = blocks.depth + blocks.keys.count
    var targets: [(LeaseTable.Target?, UInt64)] = []
    if parts.lastCount > 0 { targets.append((blocks.target(at: end), parts.lastStamp)) }
    if parts.newCount > 0 { targets.append((blocks.target(at: end - 1), parts.newStamp)) }
    if parts.repeatedCount > 0 {
      let repeatedEnd =
        blocks.target(at: parts.repeatedCount) ?? repeatedEnds[parts.repeatedStamp]
      targets.append((repeatedEnd, parts.repeatedStamp))
    }
    for case (let target?, let stamp) in targets {
      learned.append(.touch(blocks.namespace, target, use: .learned(stamp)))
    }
  }
}
