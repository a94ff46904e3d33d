import KVCore
import KVIndex
import KVTestSupport
import Testing

/// Random operations on the index and on the model at once; both must agree after each step.
final class ModelRun {
  private let index: PrefixIndex
  private var model = IndexModel()
  private var generator: SeededGenerator
  private var nextRun: UInt64 = 1
  private var nextKey: UInt64 = 1
  private var nextHostSlot: Int32 = 0
  private var hostSlots: [Int32: IndexLocation] = [:]
  /// Where blocks were when the layout had this version.
  private var marks: (version: UInt64, locations: [Chain: IndexLocation]) = (.max, [:])
  private let namespaces = [NamespaceID(rawValue: 1), NamespaceID(rawValue: 2)]

  init(seed: UInt64, fingerprintBitCount: Int) {
    generator = SeededGenerator(seed: seed)
    index = PrefixIndex(fingerprintBitCount: fingerprintBitCount, fingerprintSeed: seed)
    for namespace in namespaces {
      index.addNamespace(namespace, wordsPerBlock: testWordsPerBlock)
    }
    index.onHostSlotMoved = { [unowned self] hostSlot, location in
      hostSlots[hostSlot] = location
    }
  }

  private func random(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &generator) }
  private func randomChain() -> Chain? {
    // Sorted: the order of a dictionary differs from run to run, the seed would not reproduce.
    model.blocks.keys.sorted().randomElement(using: &generator)
  }
  private func newRun() -> BlockPosition {
    nextRun += 1
    return BlockPosition(run: RunID(rawValue: nextRun), position: UInt32(random(3)))
  }

  func step() -> String {
    switch random(100) {
    case 0..<45: return append(pending: random(2) == 0)
    case 45..<60: return assignPublished()
    case 60..<68: return matchRandom()
    case 68..<74: return split()
    case 74..<82: return setHostSlot()
    case 82..<90: return model.blocks.count > 60 || random(4) == 0 ? truncate() : matchRandom()
    case 90..<94: return random(3) == 0 ? truncateRun() : matchRandom()
    case 94..<97: return trim()
    default: return dropHostSlots()
    }
  }

  private func location(_ chain: Chain) -> IndexLocation {
    if chain.symbols.isEmpty { return .root }
    var segments: [IndexSegment] = []
    let match = index.match(chain, touch: false, segments: &segments)
    #expect(match.matchedBlockCount == chain.symbols.count, "lost \(chain)")
    return match.location
  }

  /// The row a block would get: its parent's run goes on if it has room there, else a new run.
  private func place(of chain: Chain) -> BlockPosition {
    if let parent = model.blocks[chain.parent]?.place, random(4) > 0 {
      let next = BlockPosition(run: parent.run, position: parent.position + 1)
      if model.chain(at: next, in: chain.namespace) == nil { return next }
    }
    return newRun()
  }

  private func append(pending: Bool) -> String {
    let namespace = namespaces[random(2)]
    var chain = Chain(namespace: namespace, symbols: [])
    if random(8) > 0, let parent = randomChain() { chain = parent }
    // A few blocks in a row, so that long nodes arise too.
    let blockCount = 1 + random(4)
    for _ in 0..<blockCount {
      chain = chain.child(Symbol(random(Int(symbolCount))))
      let symbol = chain.symbols[chain.symbols.count - 1]
      let place = pending ? nil : place(of: chain)
      let entry = IndexEntry(
        blockKey: BlockKey(high: 0, low: nextKey),
        flags: pending ? .pending : []
      )
      let result = index.append(
        chain.namespace,
        after: location(chain.parent),
        words: words(of: symbol),
        extra: extra(of: symbol),
        entry: entry,
        at: place
      )
      #expect(result?.isNew == (model.blocks[chain] == nil))
      if model.blocks[chain] == nil {
        model.blocks[chain] = IndexModel.Block(keyLow: nextKey, place: place)
        nextKey += 1
      }
    }
    return "append \(blockCount) to \(chain)"
  }

  private func assignPublished() -> String {
    guard let chain = randomChain(), let block = model.blocks[chain] else { return "nothing" }
    // Mostly pending blocks; now and then one that has a row gets another one.
    if block.place != nil && random(6) > 0 { return "nothing" }
    let place = place(of: chain)
    let old = location(chain)
    let durable = BlockPlace(
      tier: .disk,
      isInline: false,
      file: 3,
      slot: 4,
      storedByteCount: 5,
      generation: Generation(rawValue: 6),
      headerChecksum: 7
    )
    let new = index.assignPublished(old, as: place, durablePlace: durable)
    model.blocks[chain]?.place = place
    #expect(new == location(chain))
    let entry = new.flatMap { index.entry(at: $0) }
    #expect(entry?.place == durable && entry?.flags == .durable)
    return "assign \(place) to \(chain)"
  }

  private func matchRandom() -> String {
    var chain = randomChain() ?? Chain(namespace: namespaces[0], symbols: [])
    for _ in 0..<random(3) { chain = chain.child(Symbol(random(Int(symbolCount)))) }
    let expected = model.matchedCount(chain)
    var segments: [IndexSegment] = []
    let match = index.match(chain, touch: random(2) == 0, segments: &segments)
    #expect(match.matchedBlockCount == expected)
    #expect(segments.reduce(0) { $0 + Int($1.blockCount) } == expected)
    // The same in two halves.
    let half = random(expected + 1)
    let prefix = Chain(namespace: chain.namespace, symbols: Array(chain.symbols[..<half]))
    let rest = index.match(
      chain,
      from: half,
      after: location(prefix),
      touch: false,
      segments: &segments
    )
    #expect(rest.matchedBlockCount == expected - half)
    #expect(rest.location == match.location)
    #expect(segments.reduce(0) { $0 + Int($1.blockCount) } == expected - half)
    return "match \(chain)"
  }

  private func split() -> String {
    guard let chain = randomChain() else { return "nothing" }
    let old = location(chain)
    let lower = index.split(old.node, at: old.local)
    #expect((lower == nil) == (old.local == 0))
    return "split before \(chain)"
  }

  private func setHostSlot() -> String {
    guard let chain = randomChain(), model.blocks[chain]?.hostSlot == -1 else { return "nothing" }
    let location = location(chain)
    index.updateEntry(at: location) { $0.hostSlot = nextHostSlot }
    model.blocks[chain]?.hostSlot = nextHostSlot
    hostSlots[nextHostSlot] = location
    nextHostSlot += 1
    return "host slot for \(chain)"
  }

  private func dropHostSlots() -> String {
    for (hostSlot, location) in hostSlots {
      index.updateEntry(at: location) { entry in
        #expect(entry.hostSlot == hostSlot)
        entry.hostSlot = -1
      }
    }
    hostSlots = [:]
    for chain in model.blocks.keys { model.blocks[chain]?.hostSlot = -1 }
    return "drop host slots"
  }

  private func truncate() -> String {
    guard let chain = randomChain() else { return "nothing" }
    let location = location(chain)
    removing(model.subtree(of: chain)) { index.truncate(at: location, onRemove: $0) }
    return "truncate \(chain)"
  }

  private func truncateRun() -> String {
    guard let chain = randomChain(), let place = model.blocks[chain]?.place else {
      return "nothing"
    }
    var expected = Set<Chain>()
    for (other, block) in model.blocks where other.namespace == chain.namespace {
      guard let at = block.place, at.run == place.run, at.position >= place.position else {
        continue
      }
      expected.formUnion(model.subtree(of: other))
    }
    removing(expected) { index.truncate(chain.namespace, from: place, onRemove: $0) }
    return "truncate \(place)"
  }

  /// Checks that exactly these blocks are reported, each after all below it.
  private func removing(
    _ expected: Set<Chain>,
    _ remove: ((IndexLocation, IndexEntry) -> Void) -> Void
  ) {
    let chains = Dictionary(
      uniqueKeysWithValues: model.blocks.map { ($0.value.keyLow, $0.key) }
    )
    var left = expected
    remove { _, entry in
      guard let chain = chains[entry.blockKey.low] else {
        Issue.record("an unknown block was removed")
        return
      }
      #expect(left.remove(chain) != nil, "removed without cause: \(chain)")
      #expect(!left.contains { chain.isPrefix(of: $0) }, "removed before its children: \(chain)")
      if entry.hostSlot >= 0 { hostSlots[entry.hostSlot] = nil }
      model.blocks[chain] = nil
    }
    #expect(left.isEmpty, "not removed: \(left)")
  }

  private func trim() -> String {
    let target = random(2) == 0 ? 0 : index.statistics.byteCount * random(100) / 100
    let removedCount = index.trim(toByteCount: target) { !$0.flags.contains(.pending) }
    var segments: [IndexSegment] = []
    let gone = model.blocks.keys.filter {
      index.match($0, touch: false, segments: &segments).matchedBlockCount < $0.symbols.count
    }
    #expect(gone.count == removedCount)
    for chain in gone {
      #expect(model.blocks[chain]?.isHeld == false, "held, yet trimmed: \(chain)")
      model.blocks[chain] = nil
    }
    return "trim to \(target)"
  }

  func checkInvariants() -> [String] { index.checkInvariants() + checkMarks() }

  /// As long as the layout's version stays, every block is where it was.
  private func checkMarks() -> [String] {
    if marks.version != index.layoutVersion {
      let chains = model.blocks.keys.map { ($0, location($0)) }
      marks = (index.layoutVersion, Dictionary(uniqueKeysWithValues: chains))
    }
    return marks.locations.compactMap { chain, location in
      location == self.location(chain) ? nil : "moved \(chain)"
    }
  }

  /// All that the index says of each block, against the model.
  func compare() -> [String] {
    var faults = checkInvariants()
    if index.statistics.blockCount != model.blocks.count { faults.append("block count") }
    var segments: [IndexSegment] = []
    for (chain, block) in model.blocks {
      let at = index.match(chain, touch: false, segments: &segments).location
      guard let entry = index.entry(at: at) else {
        faults.append("lost \(chain)")
        continue
      }
      if entry.blockKey.low != block.keyLow { faults.append("key of \(chain)") }
      if entry.hostSlot != block.hostSlot { faults.append("host slot of \(chain)") }
      if block.hostSlot >= 0 && hostSlots[block.hostSlot] != at {
        faults.append("slot tag \(chain)")
      }
      if index.position(of: at) != block.place { faults.append("position of \(chain)") }
      if let place = block.place, index.locate(chain.namespace, place) != at {
        faults.append("locate \(chain)")
      }
      var path: [IndexSegment] = []
      index.path(to: at, into: &path)
      if path != segments { faults.append("path to \(chain)") }
      var pathWords: [UInt32] = []
      for segment in path {
        _ = index.withWords(of: segment) { span in
          for i in span.indices { pathWords.append(span[i]) }
        }
      }
      if pathWords != chain.symbols.flatMap({ words(of: $0) }) { faults.append("words \(chain)") }
      let last = chain.symbols[chain.symbols.count - 1]
      if index.extraBytes(at: at) != extra(of: last) { faults.append("extra bytes of \(chain)") }
      if index.parent(of: at) != (path.count == 1 && at.local == 0 ? .root : location(chain.parent))
      {
        faults.append("parent of \(chain)")
      }
    }
    return faults
  }

  /// Removes both namespaces; the index must be empty then.
  func finish() -> [String] {
    for namespace in namespaces {
      removing(Set(model.blocks.keys.filter { $0.namespace == namespace })) {
        index.removeNamespace(namespace, onRemove: $0)
      }
    }
    let statistics = index.statistics
    var faults = index.checkInvariants()
    if statistics.nodeCount != 0 || statistics.blockCount != 0 { faults.append("not empty") }
    return faults
  }
}

@Test(arguments: [0, 1, 3, 32], [1, 2, 3, 4] as [UInt64])
func indexAgreesWithModel(fingerprintBitCount: Int, seed: UInt64) {
  let run = ModelRun(seed: seed, fingerprintBitCount: fingerprintBitCount)
  for step in 0..<400 {
    let what = run.step()
    // Comparing everything costs far more than a step.
    let faults = step % 4 == 3 ? run.compare() : run.checkInvariants()
    #expect(faults == [], "seed \(seed), \(fingerprintBitCount) bits, step \(step): \(what)")
    if !faults.isEmpty { return }
  }
  #expect(run.finish() == [], "seed \(seed), \(fingerprintBitCount) bits, at the end")
}
