import Foundation
import KVAdmin
import KVCatalog
import KVCore
import KVStore

/// Opens what a crash has left, and compares it with what had been promised.
struct ImageCheck {
  let workload: Workload
  /// Evictions seen that excuse a missing block; for the counts.
  private(set) var evictedCount = 0
  private(set) var confirmedCount = 0
  private var problems: [String] = []

  init(_ workload: Workload) { self.workload = workload }

  /// What is wrong with the store at `path`, one line each.
  mutating func check(_ path: String, _ mark: Mark) -> [String] {
    problems = []
    var configuration = workload.configuration
    configuration.path = path
    let evicted =
      FileManager.default.fileExists(atPath: path + "/catalog.mdb")
      ? readCatalog(path, mark, isAfterwards: false) : []
    do throws(StoreError) {
      let store = try Store.open(configuration)
      try compare(store, mark, evicted)
      try goOn(store)
      let verification = try store.verify()
      problems += verification.findings.map { "verify: \($0)" }
      try store.close()
    } catch {
      problems.append("\(error)")
    }
    if problems.isEmpty { _ = readCatalog(path, mark, isAfterwards: true) }
    return problems
  }

  // MARK: The catalog by itself

  /// Its invariants; and the blocks whose absence an event explains.
  private mutating func readCatalog(
    _ path: String,
    _ mark: Mark,
    isAfterwards: Bool
  ) -> Set<Int> {
    let hasConfirmed = mark.standings.contains { if case .confirmed = $0 { true } else { false } }
    do throws(CatalogError) {
      var options = CatalogOptions(path: path + "/catalog.mdb")
      // The link to the lock file of a process that was killed may lead nowhere by now.
      options.lock = .none
      let catalog = try Catalog(options)
      defer { catalog.close() }
      let (faults, events, namespaces) = try catalog.read {
        (transaction) throws(CatalogError) in
        (
          try transaction.checkInvariants(),
          isAfterwards ? [] : try transaction.events(after: 0),
          try transaction.namespaces()
        )
      }
      problems += faults.map { "catalog: " + $0 }
      checkIdentities(path, namespaces)
      return blocks(removedBy: events, mark)
    } catch {
      // A crash before the store was made leaves a file that is no catalog yet.
      if hasConfirmed || isAfterwards { problems.append("catalog: \(error)") }
      return []
    }
  }

  private func blocks(removedBy events: [CatalogEvent], _ mark: Mark) -> Set<Int> {
    var removed: Set<Int> = []
    let removals = events.filter { $0.kind == .removed && $0.reason == .evicted }
    for (node, standing) in mark.standings.enumerated() {
      guard case .confirmed(let position, let newestEvent) = standing else { continue }
      let isRemoved = removals.contains { event in
        event.sequence > newestEvent && event.run == position.run
          && position.position >= event.firstPosition
          && position.position - event.firstPosition < event.blockCount
      }
      if isRemoved { removed.insert(node) }
    }
    return removed
  }

  /// Each namespace's identity can be read without the catalog (docs/file-format.md).
  private mutating func checkIdentities(_ path: String, _ namespaces: [NamespaceRow]) {
    let bytes = [UInt8](FileManager.default.contents(atPath: path + "/identities.kvs") ?? Data())
    var found: Set<UInt32> = []
    var offset = 0
    while offset + 40 <= bytes.count {
      func word(_ index: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[offset + index * 4 + $1]) << (8 * $1) }
      }
      let count = Int(word(2))
      // A torn record is stepped over.
      guard word(0) == 0x5349_564B, offset + 40 + count <= bytes.count else {
        offset += 1
        continue
      }
      if let row = namespaces.first(where: { $0.id.rawValue == word(1) }),
        row.identityRecord == Array(bytes[offset + 40..<offset + 40 + count])
      {
        found.insert(word(1))
        offset += 40 + count
      } else {
        offset += 1
      }
    }
    for row in namespaces where !found.contains(row.id.rawValue) {
      problems.append("identities.kvs: none of namespace \(row.id.rawValue)")
    }
  }

  // MARK: Through the store

  private mutating func compare(
    _ store: Store,
    _ mark: Mark,
    _ evicted: Set<Int>
  ) throws(StoreError) {
    let tree = workload.tree
    var isPresent = Array(repeating: false, count: tree.nodes.count)
    for (number, identity) in workload.identities.enumerated() {
      let leaves = tree.leaves(of: number)
      guard !leaves.isEmpty else { continue }
      let namespace = try store.openNamespace(identity)
      for leaf in leaves {
        try restore(tree.path(to: leaf), namespace, &isPresent)
      }
    }
    // What the restores brought up from the archive may have taken the place of others.
    let evicted = evicted.union(try blocksEvicted(store, mark))
    for (node, standing) in mark.standings.enumerated() {
      switch standing {
      case .unknown: break
      case .confirmed(let at, let newestEvent):
        confirmedCount += 1
        if isPresent[node] { continue }
        if workload.scenario != .roomy, evicted.contains(node) {
          evictedCount += 1
        } else {
          problems.append(
            "block \(node) (run \(at.run.rawValue), \(at.position)) was confirmed behind event "
              + "\(newestEvent) and is missing"
          )
        }
      case .absent:
        if isPresent[node] { problems.append("block \(node) is there, but should not be") }
      }
    }
    let statistics = try store.statistics()
    // A row that leads to something else, or to half of it, would be a payload that was not synced before its row. Only blocks
    // that were about to be forgotten may be invalid.
    if statistics.missesCorrupt > 0, mark.label != "forget" {
      problems.append("\(statistics.missesCorrupt) blocks failed their check")
    }
  }

  private func blocksEvicted(_ store: Store, _ mark: Mark) throws(StoreError) -> Set<Int> {
    var evicted: Set<Int> = []
    var cursor: UInt64 = 0
    while true {
      let page = try store.events(after: cursor)
      guard page.cursor != cursor, !page.events.isEmpty else { return evicted }
      cursor = page.cursor
      for event in page.events where event.kind == .removed && event.reason == .evicted {
        for (node, standing) in mark.standings.enumerated() {
          guard case .confirmed(let at, let newestEvent) = standing, event.sequence > newestEvent,
            event.run == at.run, at.position >= event.firstPosition,
            at.position - event.firstPosition < event.blockCount
          else { continue }
          evicted.insert(node)
        }
      }
    }
  }

  private mutating func restore(
    _ path: [Int],
    _ namespace: Namespace,
    _ isPresent: inout [Bool]
  ) throws(StoreError) {
    let known = path.prefix { isPresent[$0] }.count
    let tokens = workload.tree.tokens(of: path)
    let matched = try namespace.matchedBlockCount(tokens)
    guard matched > known else {
      if matched < known { problems.append("a prefix got shorter: \(matched) after \(known)") }
      return
    }
    let byteCount = namespace.identity.regionByteCounts.reduce(0, +)
    let (_, payloads) = try namespace.restore(
      tokens,
      first: known,
      payloadByteCounts: path[known...].map { _ in byteCount }
    )
    for (node, payload) in zip(path[known...], payloads) {
      isPresent[node] = true
      if !bytesEqual(payload, workload.tree.payload(of: node)) {
        problems.append("wrong bytes of block \(node)")
      }
    }
  }

  /// The store is as good as new: it takes blocks, confirms and returns them.
  private mutating func goOn(_ store: Store) throws(StoreError) {
    let tokens = (0..<8).map { UInt32(0xABCD_0000) + UInt32($0) }
    for (number, identity) in workload.identities.enumerated() {
      let namespace = try store.openNamespace(identity)
      let byteCount = identity.regionByteCounts.reduce(0, +)
      let payloads = (0..<2).map { block in
        [UInt8](repeating: UInt8(17 * number + block + 1), count: byteCount)
      }
      _ = try namespace.offload(tokens, payloads: payloads)
      // One by one: in a full store the next namespace may take this one's room.
      let flushed = try store.flush()
      if flushed.durableBlockCount != 2 { problems.append("afterwards: \(flushed)") }
      let (_, restored) = try namespace.restore(
        tokens,
        first: 0,
        payloadByteCounts: payloads.map(\.count)
      )
      if !restored.elementsEqual(payloads, by: bytesEqual) {
        problems.append("afterwards: wrong bytes in namespace \(number)")
      }
    }
  }
}
