import KVCore
import KVIndex
import Testing

private let namespace = NamespaceID(rawValue: 1)

private func entry(_ number: UInt64 = 0, pending: Bool = false, hostSlot: Int32 = -1) -> IndexEntry
{
  IndexEntry(
    blockKey: BlockKey(high: 0, low: number),
    hostSlot: hostSlot,
    flags: pending ? .pending : []
  )
}

private func makeIndex() -> PrefixIndex {
  let index = PrefixIndex(fingerprintSeed: 1)
  index.addNamespace(namespace, wordsPerBlock: testWordsPerBlock)
  return index
}

/// Appends a chain of pending blocks with these first words.
private func appendChain(
  _ index: PrefixIndex,
  after parent: IndexLocation = .root,
  _ numbers: Range<UInt32>,
  run: RunID? = nil
) -> IndexLocation {
  var location = parent
  for (offset, number) in numbers.enumerated() {
    let place = run.map { BlockPosition(run: $0, position: UInt32(offset)) }
    location =
      index.append(
        namespace,
        after: location,
        words: [number, 0, 0],
        entry: entry(UInt64(number), pending: run == nil),
        at: place
      )?.location ?? .root
  }
  return location
}

/// At the root, behind a node's last block, and at a fork.
@Test func aRunOfBlocksIsAppendedAsOneByOne() throws {
  let index = makeIndex()
  let single = makeIndex()
  let cases: [(parents: Range<UInt32>, numbers: Range<UInt32>)] = [
    (0..<0, 0..<4), (0..<4, 4..<9), (0..<2, 20..<23), (0..<0, 30..<31),
  ]
  for (parents, numbers) in cases {
    var words: [UInt32] = []
    for number in numbers { words += [number, 0, 0] }
    let end = try #require(
      index.append(
        namespace,
        after: appendChain(index, parents),
        words: words,
        blockCount: numbers.count,
        entry: { entry(UInt64(numbers.lowerBound) + UInt64($0), pending: true) }
      )
    )
    #expect(end == appendChain(single, after: appendChain(single, parents), numbers))
    #expect(index.blockKey(at: end)?.low == UInt64(numbers.upperBound - 1))
  }
  #expect(index.checkInvariants() == [])
  #expect(index.statistics.blockCount == single.statistics.blockCount)
  #expect(index.statistics.nodeCount == single.statistics.nodeCount)
}

@Test func entryIs64BytesAndKeepsItsPlace() {
  #expect(MemoryLayout<IndexEntry>.stride == 72)
  let place = BlockPlace(
    tier: .archive,
    codec: 2,
    group: 1,
    isInline: true,
    file: 10,
    slot: 11,
    storedByteCount: 12,
    generation: Generation(rawValue: 13),
    headerChecksum: 14
  )
  var value = IndexEntry(blockKey: BlockKey(high: 1, low: 2), place: place, flags: .pending)
  #expect(value.place == place)
  #expect(value.flags == [.pending, .durable, .inline])
  value.place = nil
  #expect(value.place == nil && value.flags == .pending)
}

@Test func unknownThingsAreMisses() {
  let index = makeIndex()
  let nowhere = IndexLocation(node: NodeID(rawValue: 5), local: 0)
  let other = NamespaceID(rawValue: 9)
  var segments: [IndexSegment] = []
  let chain = Chain(namespace: other, symbols: [1])
  #expect(index.match(chain, segments: &segments).matchedBlockCount == 0)
  #expect(index.append(other, after: .root, words: [1, 2, 3], entry: entry()) == nil)
  #expect(index.append(namespace, after: nowhere, words: [1, 2, 3], entry: entry()) == nil)
  #expect(index.entry(at: nowhere) == nil && index.entry(at: .root) == nil)
  #expect(index.split(nowhere.node, at: 1) == nil)
  #expect(index.parent(of: nowhere) == nil && index.position(of: nowhere) == nil)
  let place = BlockPosition(run: RunID(rawValue: 1), position: 0)
  #expect(index.assignPublished(nowhere, as: place, durablePlace: nil) == nil)
  #expect(index.locate(namespace, place) == nil)
  index.truncate(at: nowhere)
  index.truncate(namespace, from: place)
  index.touch(nowhere)
  #expect(!index.addNamespace(namespace, wordsPerBlock: 4))
  #expect(!index.addNamespace(other, wordsPerBlock: 0))
  #expect(index.checkInvariants() == [])
}

@Test func aNamespaceDoesNotSeeAnother() {
  let index = makeIndex()
  let other = NamespaceID(rawValue: 2)
  index.addNamespace(other, wordsPerBlock: testWordsPerBlock)
  _ = index.append(namespace, after: .root, words: words(of: 1), entry: entry())
  var segments: [IndexSegment] = []
  let chain = Chain(namespace: other, symbols: [1])
  #expect(index.match(chain, segments: &segments).matchedBlockCount == 0)
}

@Test func pendingTailOfAPublishedNodeSplitsWhenItsRunDiffers() {
  let index = makeIndex()
  let run = RunID(rawValue: 4)
  let last = appendChain(index, 0..<3, run: run)
  let pending = appendChain(index, after: last, 3..<5)
  #expect(pending == IndexLocation(node: last.node, local: 4))
  #expect(index.statistics.nodeCount == 1)
  // The first pending block continues the run: no split.
  let third = IndexLocation(node: last.node, local: 3)
  let next = BlockPosition(run: run, position: 3)
  #expect(index.assignPublished(third, as: next, durablePlace: nil) == third)
  #expect(index.statistics.nodeCount == 1)
  // The second gets a run of its own.
  let fork = BlockPosition(run: RunID(rawValue: 5), position: 0)
  let moved = index.assignPublished(pending, as: fork, durablePlace: nil)
  #expect(moved != pending && index.statistics.nodeCount == 2)
  #expect(index.locate(namespace, fork) == moved)
  #expect(index.locate(namespace, next) == third)
  #expect(index.checkInvariants() == [])
}

@Test func splitReportsMovedHostSlots() {
  let index = makeIndex()
  var moved: [Int32: IndexLocation] = [:]
  index.onHostSlotMoved = { moved[$0] = $1 }
  let last = appendChain(index, 0..<4)
  index.updateEntry(at: IndexLocation(node: last.node, local: 0)) { $0.hostSlot = 70 }
  index.updateEntry(at: last) { $0.hostSlot = 73 }
  let lower = index.split(last.node, at: 2)
  #expect(moved == [73: IndexLocation(node: lower ?? .none, local: 1)])
}

@Test func trimTakesTheLeastRecentlyUsedLeaves() {
  let index = makeIndex()
  let run = RunID(rawValue: 1)
  let trunk = appendChain(index, 0..<2, run: run)
  var leaves: [IndexLocation] = []
  for leaf in 0..<4 as Range<UInt32> {
    let first = 100 + 10 * leaf
    leaves.append(
      appendChain(index, after: trunk, first..<first + 2, run: RunID(rawValue: UInt64(first)))
    )
  }
  for leaf in [2, 0, 3, 1] { index.touch(leaves[leaf]) }
  index.updateEntry(at: leaves[0]) { $0.hostSlot = 1 }
  let target = index.statistics.byteCount - 1
  #expect(index.trim(toByteCount: target) { _ in true } == 2)
  #expect(!index.contains(leaves[2]))
  #expect(index.trim(toByteCount: index.statistics.byteCount - 1) { _ in true } == 2)
  #expect(index.contains(leaves[0]) && !index.contains(leaves[3]) && index.contains(leaves[1]))
  #expect(index.trim(toByteCount: 0) { _ in true } == 2)
  #expect(index.contains(leaves[0]) && index.contains(trunk))
  index.updateEntry(at: leaves[0]) { $0.hostSlot = -1 }
  #expect(index.trim(toByteCount: 0) { _ in true } == 4)
  #expect(index.statistics.nodeCount == 0)
  #expect(index.checkInvariants() == [])
}

@Test func entriesOfASegmentAreLentInPlace() {
  let index = makeIndex()
  let last = appendChain(index, 0..<4)
  let segment = IndexSegment(node: last.node, firstLocal: 1, blockCount: 3)
  let keys = index.withEntries(of: segment) { entries in
    var keys: [UInt64] = []
    for i in entries.indices {
      entries[i].expiry = 9
      keys.append(entries[i].blockKey.low)
    }
    return keys
  }
  #expect(keys == [1, 2, 3])
  #expect(index.entry(at: last)?.expiry == 9)
  #expect(index.entry(at: IndexLocation(node: last.node, local: 0))?.expiry == 0)
  let tooLong = IndexSegment(node: last.node, firstLocal: 1, blockCount: 4)
  #expect(index.withEntries(of: tooLong) { _ in 0 } == nil)
}

@Test func deepChainsOfNodesNeedNoStack() {
  let index = makeIndex()
  // A run of its own for each block: a chain of one-block nodes.
  var location = IndexLocation.root
  for number in 0..<50_000 as Range<UInt32> {
    let place = BlockPosition(run: RunID(rawValue: UInt64(number) + 1), position: 0)
    location =
      index.append(namespace, after: location, words: [number, 1, 2], entry: entry(), at: place)?
      .location ?? .root
  }
  #expect(index.statistics.nodeCount == 50_000)
  var path: [IndexSegment] = []
  index.path(to: location, into: &path)
  #expect(path.count == 50_000)
  var removedCount = 0
  index.truncate(namespace, from: BlockPosition(run: RunID(rawValue: 1), position: 0)) { _, _ in
    removedCount += 1
  }
  #expect(removedCount == 50_000 && index.statistics.blockCount == 0)
}
