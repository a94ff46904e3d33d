import KVCatalog
import KVCore
import Testing

/// Paths that an order beside the catalog proposes: removed by the stamp that it knows, or refused.
@Suite struct PathRemovalTests {
  private let fixture: CatalogFixture
  private let namespace: NamespaceID

  init() throws {
    fixture = try CatalogFixture()
    namespace = try fixture.namespace(1, slotByteCount: 0)
  }

  /// A chain of blocks; returns where they stand.
  private func chain(
    _ txn: WriteTransaction,
    _ words: ClosedRange<UInt32>,
    after parent: BlockPosition = .root
  ) throws(CatalogError) -> [BlockPosition] {
    var chain: [BlockPosition] = []
    for word in words {
      let outcome = try txn.publish(
        namespace,
        BlockKey(high: 0, low: UInt64(word)),
        parent: chain.last ?? parent,
        word: word,
        place: inlinePlace(),
        payload: [1]
      )
      guard case .stored(let position) = outcome else { throw .invalidArgument }
      chain.append(position)
    }
    return chain
  }

  private func end(
    _ txn: WriteTransaction,
    _ at: BlockPosition
  ) throws(CatalogError) -> StampedEnd {
    StampedEnd(namespace: namespace, at: at, stamp: try txn.stamp(namespace, at) ?? 0)
  }

  private func remove(
    _ txn: WriteTransaction,
    _ end: StampedEnd,
    blockCount: Int = .max,
    protecting held: [BlockPosition] = []
  ) throws(CatalogError) -> PathRemoval {
    try txn.removePath(endingAt: end, blockCount: blockCount, reason: .evicted) {
      held.contains(BlockPosition(run: $1, position: $2))
    }
  }

  @Test func whatIsOutdatedIsRefused() throws {
    try fixture.write { (txn) throws(CatalogError) in
      let blocks = try chain(txn, 1...3)
      let former = try end(txn, blocks[2])
      try txn.touch(namespace, pathEnd: blocks[2])
      try txn.touch(namespace, pathEnd: blocks[1])
      let inner = try end(txn, blocks[1])
      let missing = StampedEnd(
        namespace: namespace,
        at: .init(run: .init(rawValue: 99), position: 0),
        stamp: 1
      )
      txn.stampChanges = []
      for proposed in [former, inner, missing] {
        guard case .outdated = try remove(txn, proposed) else {
          Issue.record("\(proposed) was not refused")
          continue
        }
      }
      #expect(txn.stampChanges?.isEmpty == true)
      #expect(try txn.accounting(namespace).blockCount == 3)
    }
  }

  @Test func whatHasToStayIsRefused() throws {
    try fixture.write { (txn) throws(CatalogError) in
      let blocks = try chain(txn, 1...3)
      let last = try end(txn, blocks[2])
      guard case .protected = try remove(txn, last, protecting: [blocks[2]]) else {
        Issue.record("the path end was not refused")
        return
      }
      // One that is held higher up keeps what hangs on it no longer.
      guard case .removed(let summary, let above) = try remove(txn, last, protecting: [blocks[1]])
      else {
        Issue.record("the path end was refused")
        return
      }
      #expect(summary.blockCount == 1)
      #expect(above == StampedEnd(namespace: namespace, at: blocks[1], stamp: last.stamp))
    }
  }

  /// The block that is left above can be proposed at once, by the stamp that it was handed.
  @Test func theBlockAboveCanGoNext() throws {
    try fixture.write { (txn) throws(CatalogError) in
      let stem = try chain(txn, 1...2)
      let branch = try chain(txn, 10...11, after: stem[1])
      let other = try chain(txn, 20...20, after: stem[1])
      let first = try remove(txn, try end(txn, branch[1]))
      guard case .removed(let summary, let fork?) = first else {
        Issue.record("\(first)")
        return
      }
      #expect(summary.blockCount == 2 && fork.at == stem[1])
      // Another branch is left below it.
      guard case .outdated = try remove(txn, fork) else {
        Issue.record("a fork was removed")
        return
      }
      let second = try remove(txn, try end(txn, other[0]), blockCount: 1)
      guard case .removed(_, let above?) = second else {
        Issue.record("\(second)")
        return
      }
      let third = try remove(txn, above)
      guard case .removed(let rest, nil) = third else {
        Issue.record("\(third)")
        return
      }
      #expect(rest.blockCount == 2)
      #expect(try txn.accounting(namespace).blockCount == 0)
    }
  }
}
