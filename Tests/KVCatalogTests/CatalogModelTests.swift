import KVCatalog
import KVCore
import KVTestSupport
import Testing

/// What the catalog should hold, kept the simplest way: each block knows its own recency.
private struct CatalogModel {
  struct Block {
    var namespace: Int
    var parent: Int?
    var word: UInt32
    var blockKey: BlockKey
    var position: BlockPosition
    var slot: SlotAddress?
    var priority: UInt8
    var children: Set<Int> = []
    var recency = 0
  }

  var blocks: [Int: Block] = [:]
  var reserved: [OwnerID: Set<SlotAddress>] = [:]
  private var nextID = 0
  private var useCount = 0

  mutating func insert(_ block: Block) -> Int {
    nextID += 1
    blocks[nextID] = block
    if let parent = block.parent { blocks[parent]?.children.insert(nextID) }
    touch(nextID)
    return nextID
  }

  /// A use of a block is a use of everything above it.
  mutating func touch(_ id: Int) {
    useCount += 1
    var next: Int? = id
    while let id = next {
      blocks[id]?.recency = useCount
      next = blocks[id]?.parent
    }
  }

  mutating func remove(_ id: Int) -> [Block] {
    guard let block = blocks.removeValue(forKey: id) else { return [] }
    if let parent = block.parent { blocks[parent]?.children.remove(id) }
    return [block] + block.children.flatMap { remove($0) }
  }

  /// The leaf of the lowest priority, the oldest of these, again and again.
  mutating func evict(
    _ namespaces: Set<Int>,
    _ count: Int,
    protected: Set<Int>
  ) -> [Block] {
    var gone: [Block] = []
    while gone.count < count {
      let victim = blocks.filter { id, block in
        block.children.isEmpty && namespaces.contains(block.namespace) && !protected.contains(id)
      }.min {
        ($0.value.priority, $0.value.recency) < ($1.value.priority, $1.value.recency)
      }
      guard let victim else { break }
      gone += remove(victim.key)
    }
    return gone
  }

  /// As `evict`, until the namespace's blocks of so many bytes each are within the quota.
  mutating func enforceQuota(
    _ namespace: Int,
    _ quotaBytes: UInt64,
    bytesPerBlock: UInt64,
    protected: Set<Int>
  ) -> [Block] {
    let count = blocks.values.count { $0.namespace == namespace }
    guard quotaBytes > 0, UInt64(count) * bytesPerBlock > quotaBytes else { return [] }
    return evict([namespace], count - Int(quotaBytes / bytesPerBlock), protected: protected)
  }

  func child(_ namespace: Int, _ parent: Int?, _ word: UInt32) -> Int? {
    blocks.first {
      $0.value.namespace == namespace && $0.value.parent == parent && $0.value.word == word
    }?.key
  }
}

/// Random operations on catalog and model, compared after each step.
private final class CatalogModelRun {
  static let slotByteCounts: [UInt32] = [4096, 8192, 0, 4096]
  static let owners = (1...3).map { OwnerID(rawValue: $0) }

  let fixture: CatalogFixture
  var model = CatalogModel()
  var random: SeededGenerator
  var namespaces: [NamespaceID] = []
  let weights: [Int]
  /// One seed in three knows only one priority: then stamps are dropped early.
  let priorities: [UInt8]
  var quotas: [Int: UInt64] = [:]
  var log: [String] = []
  /// What the commits said of stamps.
  private var stamps: [Place: UInt64] = [:]

  init(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var weights = (0..<8).map { _ in Int.random(in: 0...4, using: &random) }
    weights[0] = max(weights[0], 3)
    self.weights = weights
    priorities = seed % 3 == 0 ? [50] : [50, 50, 10, 90]
    self.random = random
    fixture = try CatalogFixture { $0.eventCountMax = 50 }
    for (index, slotByteCount) in Self.slotByteCounts.enumerated() {
      namespaces.append(
        try fixture.namespace(UInt64(index + 1), slotByteCount: slotByteCount)
      )
    }
    try fixture.write { (txn) throws(CatalogError) in
      for slotByteCount: UInt32 in [4096, 4096, 8192] {
        _ = try txn.createSlotFile(tier: .disk, slotByteCount: slotByteCount, slotCount: 61)
      }
    }
  }

  func step() throws {
    log = []
    let (modelBefore, quotasBefore) = (model, quotas)
    let mustAbort = Int.random(in: 0..<8, using: &random) == 0
    let operationCount = Int.random(in: 1...3, using: &random)
    do {
      let ended = try fixture.catalog.write(timeNanoseconds: 1) { (txn) throws(CatalogError) in
        txn.stampChanges = []
        for _ in 0..<operationCount { try operation(txn) }
        if mustAbort { throw .closed }
        return txn
      }
      for change in ended.stampChanges ?? [] {
        switch change {
        case .used: Issue.record("no use has a number")
        case .stamped(let end):
          stamps[Place(namespace: end.namespace, at: end.at)] = end.stamp
        case .unstamped(let namespace, let at): stamps[Place(namespace: namespace, at: at)] = nil
        }
      }
    } catch CatalogError.closed {
      #expect(mustAbort)
      model = modelBefore
      quotas = quotasBefore
    }
    if Int.random(in: 0..<10, using: &random) == 0 { try fixture.reopen() }
    try compare()
  }

  private func operation(_ txn: WriteTransaction) throws(CatalogError) {
    var pick = Int.random(in: 0..<weights.reduce(0, +), using: &random)
    var index = 0
    while pick >= weights[index] {
      pick -= weights[index]
      index += 1
    }
    switch index {
    case 0: try publish(txn)
    case 1: try touch(txn)
    case 2: try evict(txn, protects: false)
    case 3: try evict(txn, protects: true)
    case 4: try removeSubtree(txn)
    case 5: try reserve(txn)
    case 6: try limit(txn)
    default: try releaseOwner(txn)
    }
  }

  private func publish(_ txn: WriteTransaction) throws(CatalogError) {
    let n = Int.random(in: 0..<namespaces.count, using: &random)
    let slotByteCount = Self.slotByteCounts[n]
    let owner = Self.owners[Int.random(in: 0..<3, using: &random)]
    let mine = model.blocks.filter { $0.value.namespace == n }.keys.sorted()
    var parent =
      Int.random(in: 0..<4, using: &random) == 0 ? nil : mine.randomElement(using: &random)
    for _ in 0..<Int.random(in: 1...6, using: &random) {
      let word = UInt32.random(in: 0..<3, using: &random)
      let above = parent.flatMap { model.blocks[$0] }
      let blockKey = testKey(
        after: above?.blockKey ?? BlockKey(high: 1, low: UInt64(n)),
        word
      )
      let slots =
        slotByteCount == 0
        ? []
        : try txn.reserveSlots(tier: .disk, slotByteCount: slotByteCount, count: 1, owner: owner)
      if slotByteCount != 0, slots.isEmpty { return }
      let priority = priorities.randomElement(using: &random) ?? 50
      let outcome = try txn.publish(
        namespaces[n],
        blockKey,
        parent: above?.position ?? .root,
        word: word,
        place: slots.first.map { slotPlace($0) } ?? inlinePlace(),
        payload: slotByteCount == 0 ? [1, 2, 3] : nil,
        priority: priority,
        owner: owner
      )
      log.append("publish \(n) \(String(describing: above?.position)) \(word): \(outcome)")
      if let known = model.child(n, parent, word) {
        #expect(outcome == model.blocks[known].map { .duplicate($0.position) })
        try txn.releaseReservation(slots, owner: owner)
        // What is offered again keeps the larger priority.
        let stored = model.blocks[known]?.priority ?? 0
        model.blocks[known]?.priority = max(stored, priority)
        parent = known
      } else if case .stored(let position) = outcome {
        parent = model.insert(
          CatalogModel.Block(
            namespace: n,
            parent: parent,
            word: word,
            blockKey: blockKey,
            position: position,
            slot: slots.first,
            priority: priority
          )
        )
      } else {
        Issue.record("\(outcome)")
      }
    }
  }

  private func touch(_ txn: WriteTransaction) throws(CatalogError) {
    guard let id = model.blocks.keys.sorted().randomElement(using: &random),
      let block = model.blocks[id]
    else { return }
    log.append("touch \(block.namespace) \(block.position)")
    #expect(try txn.touch(namespaces[block.namespace], pathEnd: block.position))
    let missing = BlockPosition(run: RunID(rawValue: 1 << 40), position: 0)
    #expect(try !txn.touch(namespaces[block.namespace], pathEnd: missing))
    model.touch(id)
  }

  private func evict(_ txn: WriteTransaction, protects: Bool) throws(CatalogError) {
    let count = Int.random(in: 0...9, using: &random)
    let pool = ([nil, 0, 1, 2] as [UInt32?]).randomElement(using: &random) ?? nil
    let affected = Set(
      namespaces.indices.filter { pool == nil || Self.slotByteCounts[$0] / 4096 == pool }
    )
    let (protected, ends) = protection(protects)
    log.append("evict \(count) of \(String(describing: pool)) but \(ends.map(\.at))")
    let summary = try txn.evict(pool: pool, blockCount: count) { namespace, run, position in
      ends.contains(
        Place(namespace: namespace, at: BlockPosition(run: run, position: position))
      )
    }
    checkRemoved(summary, model.evict(affected, count, protected: protected))
  }

  /// Changes a namespace's quota, or enforces it.
  private func limit(_ txn: WriteTransaction) throws(CatalogError) {
    let n = Int.random(in: 0..<namespaces.count, using: &random)
    let bytesPerBlock = Self.slotByteCounts[n] == 0 ? 1000 : UInt64(Self.slotByteCounts[n])
    if Int.random(in: 0..<3, using: &random) == 0 {
      let quota = UInt64.random(in: 0...12, using: &random) * bytesPerBlock
      log.append("quota \(n) \(quota)")
      let limits = NamespaceLimits(quotaBytes: quota)
      #expect(try txn.setLimits(namespaces[n], limits) == (quotas[n] ?? 0 != quota))
      quotas[n] = quota
    }
    let (protected, ends) = protection(Bool.random(using: &random))
    log.append("enforce \(n) but \(ends.map(\.at))")
    let summary = try txn.enforceQuota(namespaces[n]) { namespace, run, position in
      ends.contains(
        Place(namespace: namespace, at: BlockPosition(run: run, position: position))
      )
    }
    let expected = model.enforceQuota(
      n,
      quotas[n] ?? 0,
      bytesPerBlock: bytesPerBlock,
      protected: protected
    )
    checkRemoved(summary, expected)
  }

  private func protection(_ protects: Bool) -> (ids: Set<Int>, places: Set<Place>) {
    var protected: Set<Int> = []
    if protects {
      for id in model.blocks.keys.sorted() where Int.random(in: 0..<4, using: &random) == 0 {
        protected.insert(id)
      }
    }
    return (protected, Set(protected.compactMap { model.blocks[$0].map { Place(namespaces, $0) } }))
  }

  private func removeSubtree(_ txn: WriteTransaction) throws(CatalogError) {
    guard let id = model.blocks.keys.sorted().randomElement(using: &random),
      let block = model.blocks[id]
    else { return }
    log.append("remove \(block.namespace) \(block.position)")
    let summary = try txn.removeSubtree(
      namespaces[block.namespace],
      at: block.position,
      reason: .forgotten
    )
    checkRemoved(summary, model.remove(id))
  }

  private func reserve(_ txn: WriteTransaction) throws(CatalogError) {
    let owner = Self.owners[Int.random(in: 0..<3, using: &random)]
    let slots = try txn.reserveSlots(
      tier: .disk,
      slotByteCount: [4096, 8192].randomElement(using: &random) ?? 4096,
      count: Int.random(in: 0...9, using: &random),
      owner: owner
    )
    let used = Set(model.blocks.values.compactMap(\.slot) + model.reserved.values.flatMap { $0 })
    #expect(used.isDisjoint(with: slots))
    #expect(Set(slots).count == slots.count)
    log.append("reserve \(owner.rawValue) \(slots.count)")
    model.reserved[owner, default: []].formUnion(slots)
  }

  private func releaseOwner(_ txn: WriteTransaction) throws(CatalogError) {
    let owner = Self.owners[Int.random(in: 0..<3, using: &random)]
    log.append("release \(owner.rawValue)")
    #expect(try txn.freeReservations(ofOwner: owner) == model.reserved[owner]?.count ?? 0)
    model.reserved[owner] = nil
  }

  private func checkRemoved(_ summary: RemovedSummary, _ expected: [CatalogModel.Block]) {
    var removed: [Place] = []
    for range in summary.ranges {
      for offset in 0..<range.blockCount {
        removed.append(
          Place(
            namespace: range.namespace,
            at: BlockPosition(run: range.run, position: range.firstPosition + offset)
          )
        )
      }
    }
    #expect(removed.count == summary.blockCount)
    #expect(Set(removed) == Set(expected.map { Place(namespaces, $0) }), "\(log)")
    #expect(Set(summary.freedSlots) == Set(expected.compactMap(\.slot)))
  }

  private func compare() throws {
    try fixture.catalog.read { (txn) throws(CatalogError) in
      let problems = try txn.checkInvariants()
      #expect(problems == [], "\(log)")
      for (n, namespace) in namespaces.enumerated() {
        let count = model.blocks.values.count { $0.namespace == n }
        #expect(try txn.accounting(namespace).blockCount == UInt64(count))
      }
      for block in model.blocks.values {
        let namespace = namespaces[block.namespace]
        #expect(try txn.find(namespace, block.blockKey) == block.position)
        let parent = block.parent.flatMap { model.blocks[$0] }
        #expect(try txn.parent(namespace, block.position) == parent?.position ?? .root)
        #expect(try txn.row(namespace, block.position)?.words == littleEndianBytes(block.word))
      }
      var stored: [Place: UInt64] = [:]
      for pool in Set(Self.slotByteCounts.map { $0 / 4096 }) {
        try txn.forEachStamp(pool: pool) { row in
          stored[Place(namespace: row.namespace, at: row.end)] = row.stamp
          return true
        }
      }
      #expect(stored == stamps, "\(log)")
      var reserved: [OwnerID: Set<SlotAddress>] = [:]
      for row in try txn.reservations() { reserved[row.owner, default: []].formUnion(row.slots) }
      #expect(reserved == model.reserved.filter { !$0.value.isEmpty })
    }
  }

  private struct Place: Hashable {
    var namespace: NamespaceID
    var at: BlockPosition

    init(namespace: NamespaceID, at: BlockPosition) {
      self.namespace = namespace
      self.at = at
    }

    init(_ namespaces: [NamespaceID], _ block: CatalogModel.Block) {
      self.init(namespace: namespaces[block.namespace], at: block.position)
    }
  }
}

@Suite struct CatalogModelTests {
  /// How the newest use below a block goes while an older block stays below it.
  enum Loss: CaseIterable { case subtreeRemoved, forkEvicted, tailEvicted, nothingEvicted }

  /// A block that loses its newest branch while an older one stays is still as recent as that branch made it.
  @Test(arguments: Loss.allCases)
  func recencyOfALostBranchStaysWithItsParent(loss: Loss) throws {
    let fixture = try CatalogFixture()
    let namespace = try fixture.namespace(1, slotByteCount: 0)
    try fixture.write { (txn) throws(CatalogError) in
      func add(_ key: UInt64, _ parent: BlockPosition) throws(CatalogError) -> BlockPosition {
        let outcome = try txn.publish(
          namespace,
          BlockKey(high: 0, low: key),
          parent: parent,
          word: UInt32(key),
          place: inlinePlace(),
          payload: [1]
        )
        guard case .stored(let position) = outcome else { throw .invalidArgument }
        return position
      }
      let parent = try add(1, .root)
      // The tail of the parent's run, then a fork.
      let tail = try add(2, parent)
      let fork = try add(3, parent)
      let old = loss == .tailEvicted ? fork : tail
      let new = loss == .tailEvicted ? tail : fork
      try txn.touch(namespace, pathEnd: old)
      let other = try add(4, .root)
      try txn.touch(namespace, pathEnd: loss == .nothingEvicted ? parent : new)

      var expected = [old, other, parent]
      switch loss {
      case .subtreeRemoved:
        #expect(try txn.removeSubtree(namespace, at: new, reason: .forgotten).blockCount == 1)
      case .forkEvicted, .tailEvicted:
        // The old branch and the other block are in use, so the newest leaves.
        let summary = try txn.evict(pool: 0, blockCount: 1) { _, run, position in
          [old, other].contains(BlockPosition(run: run, position: position))
        }
        #expect(summary.ranges.map(\.run) == [new.run])
      case .nothingEvicted:
        #expect(try txn.evict(pool: 0, blockCount: 1) { _, _, _ in true }.ranges.isEmpty)
        expected.insert(new, at: 0)
      }
      var order: [BlockPosition] = []
      for _ in expected {
        for range in try txn.evict(pool: nil, blockCount: 1).ranges {
          order.append(BlockPosition(run: range.run, position: range.firstPosition))
        }
      }
      #expect(order == expected)
      let problems = try txn.checkInvariants()
      #expect(problems == [])
    }
  }

  /// The catalog does what the model does, in every order of operations; evictions in the exact order.
  @Test(arguments: 0..<40 as Range<UInt64>)
  func agreesWithTheModel(seed: UInt64) throws {
    let run = try CatalogModelRun(seed: seed)
    for _ in 0..<80 { try run.step() }
  }
}
