import CIORecorder
import Glibc
import KVAdmin
import KVCore
import KVStore
import KVTestSupport

/// What is known of a block at some moment.
enum Standing {
  /// It may be there or not.
  case unknown
  /// A flush has confirmed it at this place in the catalog, when `newestEvent` was the newest event.
  case confirmed(BlockPosition, newestEvent: UInt64)
  /// Never offloaded, or forgotten durably.
  case absent
}

/// What had been promised once so many operations were done.
struct Mark {
  let operationCount: Int
  let label: String
  /// By node.
  let standings: [Standing]
}

/// A random but repeatable use of one store: namespaces, branches and forks, duplicates, touches, leases, forgetting, reopening.
///
/// Whoever calls it records the I/O; the marks say which promises hold from which operation on.
final class Workload {
  static let tokensPerBlock = 4
  /// Offloads are flushed before they could make the writer start by itself.
  private static let pendingByteCountMax = 8 << 20

  let scenario: Scenario
  let configuration: StoreConfiguration
  let identities: [NamespaceIdentity]
  private(set) var tree: BlockTree
  private(set) var marks: [Mark] = []
  /// Where it writes its marks as well, for whoever looks at what it left when it was killed.
  var markFile: String?
  /// What went wrong although nothing had failed yet.
  private(set) var problems: [String] = []
  /// Blocks that it made the store evict.
  private(set) var evictedBlockCount: UInt64 = 0
  /// Blocks that went from one tier to another.
  private(set) var movedBlockCount: UInt64 = 0

  private var generator: SeededGenerator
  private var standings: [Standing] = []
  private var store: Store?
  private var namespaces: [Int: Namespace] = [:]
  /// Offloaded since the last flush.
  private var pending: Set<Int> = []
  private var pendingByteCount = 0
  private var leases: [UInt64] = []
  private var strangerCount = 0
  /// Namespaces that get new blocks; changes now and then, so that one slot size may fill the store before another comes.
  private var inUse: [Int] = [0]

  init(scenario: Scenario, seed: UInt64, path: String) {
    self.scenario = scenario
    configuration = scenario.configuration(path: path)
    identities = scenario.identities
    tree = BlockTree(
      payloadByteCounts: identities.map { $0.regionByteCounts.reduce(0, +) }
    )
    generator = SeededGenerator(seed: seed)
  }

  func run(stepCount: Int) throws(StoreError) {
    mark("open")
    store = try Store.open(configuration)
    mark("opened")
    // Each seed has its own habits.
    var weights = (0..<8).map { _ in Int.random(in: 0...4, using: &generator) }
    weights[0] += 5
    weights[1] += 1
    weights[6] /= 2
    for step in 0..<stepCount {
      if step % 12 == 0 {
        inUse = identities.indices.shuffled(using: &generator)
        inUse.removeLast(Int.random(in: 0..<identities.count, using: &generator))
      }
      var choice = Int.random(in: 0..<weights.reduce(0, +), using: &generator)
      let step = weights.firstIndex { weight in
        choice -= weight
        return choice < 0
      }
      switch step {
      case 0: try offload()
      case 1: try flush()
      case 2: try touch()
      case 3: try forget()
      case 4: try restore()
      case 5: try lease()
      case 6: try openStrangers()
      default: if Int.random(in: 0..<3, using: &generator) == 0 { try reopen() }
      }
    }
    try flush()
    mark("close")
    try close()
    mark("closed")
  }

  // MARK: Steps

  private func offload() throws(StoreError) {
    let number = inUse.randomElement(using: &generator) ?? 0
    let path = newPath(namespace: number)
    let byteCount = path.count * identities[number].regionByteCounts.reduce(0, +)
    if pendingByteCount + byteCount > Self.pendingByteCountMax { try flush() }
    let namespace = try namespace(number)
    for node in path {
      if case .absent = standings[node] { standings[node] = .unknown }
    }
    mark("offload")
    let (tokens, payloads) = (tree.tokens(of: path), path.map { tree.payload(of: $0) })
    var result = try namespace.offload(tokens, payloads: payloads)
    if result.outcomes.contains(.full), !leases.isEmpty {
      // Leases may hold all there is; without them there is room.
      while let lease = leases.popLast() { _ = try store?.releaseLease(lease) }
      result = try namespace.offload(tokens, payloads: payloads)
    }
    if result.doneBlockCount < path.count { complain("offload: \(result.outcomes)") }
    pending.formUnion(path.prefix(result.doneBlockCount))
    pendingByteCount += byteCount
  }

  /// A path to new blocks after a known one, or (a duplicate) to an old one.
  private func newPath(namespace: Int) -> [Int] {
    let known = tree.nodes.indices.filter { tree.nodes[$0].namespace == namespace }
    if let old = known.randomElement(using: &generator),
      Int.random(in: 0..<6, using: &generator) == 0
    {
      return tree.path(to: old)
    }
    var end: Int?
    if Int.random(in: 0..<4, using: &generator) > 0 {
      end = known.filter { tree.depth(of: $0) < 16 }.randomElement(using: &generator)
    }
    for _ in 0..<Int.random(in: 1...6, using: &generator) {
      end = tree.add(namespace: namespace, after: end)
      standings.append(.absent)
    }
    return end.map { tree.path(to: $0) } ?? []
  }

  private func flush() throws(StoreError) {
    guard let store else { return }
    mark("flush")
    let flushed = try store.flush()
    if scenario == .roomy, try store.statistics().blocksEvicted > 0 { complain("flush: evicted") }
    if scenario == .roomy,
      flushed.droppedFullBlockCount + flushed.droppedParentBlockCount
        + flushed.droppedErrorBlockCount > 0
    {
      complain("flush: \(flushed)")
    }
    try confirm(store)
    mark("flushed")
  }

  /// Looks up where the pending blocks are.
  private func confirm(_ store: Store) throws(StoreError) {
    let newestEvent = try store.inspector.summary().events?.upperBound ?? 0
    for node in pending.sorted() {
      let namespace = try namespace(tree.nodes[node].namespace)
      guard let key = try namespace.keys(tree.tokens(of: tree.path(to: node))).last else {
        continue
      }
      if let block = try store.inspector.block(namespace.id, key) {
        standings[node] = .confirmed(block.position, newestEvent: newestEvent)
      } else if scenario == .roomy {
        complain("flush: block \(node) is not there")
      }
    }
    pending = []
    pendingByteCount = 0
  }

  private func touch() throws(StoreError) {
    guard let path = knownPath() else { return }
    _ = try namespace(tree.nodes[path[0]].namespace).touch(tree.tokens(of: path))
  }

  private func forget() throws(StoreError) {
    guard let path = knownPath(), let node = path.last else { return }
    let number = tree.nodes[node].namespace
    let namespace = try namespace(number)
    let isAll = Int.random(in: 0..<8, using: &generator) == 0
    let gone =
      isAll
      ? tree.nodes.indices.filter { tree.nodes[$0].namespace == number } : tree.subtree(of: node)
    for node in gone {
      if case .confirmed = standings[node] { standings[node] = .unknown }
    }
    mark("forget")
    _ = try namespace.forget(isAll ? [] : tree.tokens(of: path))
    for node in gone {
      standings[node] = .absent
      pending.remove(node)
    }
    mark("forgot")
  }

  private func restore() throws(StoreError) {
    guard let path = knownPath() else { return }
    let number = tree.nodes[path[0]].namespace
    let regions = identities[number].regionByteCounts.reduce(0, +)
    let (result, payloads) = try namespace(number).restore(
      tree.tokens(of: path),
      first: 0,
      payloadByteCounts: path.map { _ in regions }
    )
    for (node, payload) in zip(path, payloads) where !bytesEqual(payload, tree.payload(of: node)) {
      complain("restore: wrong bytes of block \(node)")
    }
    if scenario == .roomy {
      let confirmed = path.prefix { if case .confirmed = standings[$0] { true } else { false } }
      if result.doneBlockCount < confirmed.count { complain("restore: \(result.outcomes)") }
    }
  }

  private func lease() throws(StoreError) {
    // Drawn whatever the store has answered so far: each run of a seed has the same steps.
    let (isRelease, known) = (Bool.random(using: &generator), knownPath())
    if leases.count > 2 || isRelease, let lease = leases.popLast() {
      _ = try store?.releaseLease(lease)
      return
    }
    guard let path = known else { return }
    let lease = try namespace(tree.nodes[path[0]].namespace).takeLease(tree.tokens(of: path))
    if lease != 0 { leases.append(lease) }
  }

  /// Tenants that come once and leave nothing: their namespaces are removed when others come.
  private func openStrangers() throws(StoreError) {
    guard let store else { return }
    for _ in 0..<Int.random(in: 1...6, using: &generator) {
      var identity = identities[0]
      strangerCount += 1
      identity.salt = Array("stranger \(strangerCount)".utf8)
      mark("stranger")
      _ = try store.openNamespace(identity)
    }
    if Int.random(in: 0..<4, using: &generator) == 0 {
      mark("gc")
      _ = try store.collectGarbage()
    }
    mark("strangers")
  }

  private func reopen() throws(StoreError) {
    mark("reopen")
    try close()
    namespaces = [:]
    leases = []
    var configuration = configuration
    let isSmaller = scenario == .shrinking && Int.random(in: 0..<3, using: &generator) > 0
    if isSmaller { configuration.capacityBytes = StoreConfiguration.capacityBytesMin }
    let store = try Store.open(configuration)
    self.store = store
    if isSmaller { try waitUntilWithin(configuration.capacityBytes, store) }
    try confirm(store)
    mark("reopened")
  }

  /// It comes down to its capacity in the background; a seed is to give the same operations each time.
  private func waitUntilWithin(_ capacity: Int, _ store: Store) throws(StoreError) {
    for _ in 0..<10_000 {
      if try store.statistics().diskBytesUsed <= capacity { return }
      usleep(1000)
    }
    complain("more than the capacity")
  }

  private func close() throws(StoreError) {
    guard let store else { return }
    // Its last flush may evict more; this is for the counts only.
    let statistics = try store.statistics()
    evictedBlockCount += statistics.blocksEvicted
    movedBlockCount += statistics.blocksDemoted + statistics.blocksPromoted
    try store.close()
    self.store = nil
  }

  // MARK: Small parts

  private func knownPath() -> [Int]? {
    tree.nodes.indices.randomElement(using: &generator).map { tree.path(to: $0) }
  }

  private func namespace(_ number: Int) throws(StoreError) -> Namespace {
    if let opened = namespaces[number] { return opened }
    guard let store else { throw .closed }
    mark("namespace")
    let opened = try store.openNamespace(identities[number])
    namespaces[number] = opened
    return opened
  }

  private func mark(_ label: String) {
    let mark = Mark(operationCount: iorecorder_count(), label: label, standings: standings)
    marks.append(mark)
    if let markFile { MarkFile.append(mark, to: markFile) }
  }

  private func complain(_ text: String) { problems.append("before any crash: " + text) }
}
