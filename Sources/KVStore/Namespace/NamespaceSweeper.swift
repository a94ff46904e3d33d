internal import Glibc
internal import KVCatalog
internal import KVCore

/// Makes namespaces, and removes those that hold nothing, so that a salt for each user or request does not fill the store.
///
/// On the writer's thread. One that a handle of any process is open for stays, and one with a quota or a pin. A removed number is not
/// given again. What `identities.kvs` says of it leaves when the file is next condensed, after the commit.
final class NamespaceSweeper: Sendable {
  private let catalog: Catalog
  private let time: StoreTime
  private let writer: CatalogWriter
  private let identities: IdentityLog
  private let holds: NamespaceHolds?
  /// Where the next look begins.
  private let next = Monitor(NamespaceID(rawValue: 0))

  /// How many are looked at whenever one is made: more leave than come.
  private static let lookCount = 16
  /// In one commit.
  private static let sweepCount = 1024
  /// Where identities take all the room that they may, the coldest quarter of so many leaves with its blocks.
  private static let candidateCount = 256
  /// Each evicts a twentieth of the rows.
  private static let roundCountMax = 8

  init(
    _ catalog: Catalog,
    _ time: StoreTime,
    _ writer: CatalogWriter,
    _ identities: IdentityLog,
    _ holds: NamespaceHolds?
  ) {
    self.catalog = catalog
    self.time = time
    self.writer = writer
    self.identities = identities
    self.holds = holds
  }

  /// Nobody holds these until its end.
  private final class Seizure {
    private(set) var namespaces: [NamespaceID] = []
    private let holds: NamespaceHolds

    init(_ holds: NamespaceHolds) { self.holds = holds }

    deinit { holds.letGo(namespaces) }

    func take(_ namespace: NamespaceID) -> Bool {
      guard holds.seize(namespace) else { return false }
      namespaces.append(namespace)
      return true
    }
  }

  // MARK: Making

  /// Makes a namespace that is not there.
  ///
  /// Where there is no room for its row or its record, empty ones leave first, then the coldest that nobody uses, then blocks.
  ///
  /// - Parameters:
  ///   - namespace: its row, without a number.
  ///   - makeCatalogRoom: evicts some rows; returns how many.
  /// - Returns: its number, held, so that nobody removes it before it is used; nil when it is there.
  /// - Throws: `StoreError`; `.full` when all of that was not enough.
  func create(
    _ namespace: NamespaceRow,
    makeCatalogRoom: () throws(StoreError) -> Int
  ) throws(StoreError) -> NamespaceID? {
    if case .made(let id) = try createOnce(namespace, sweeping: true) { return id }
    var roundCount = 0
    // Removals take pages as well, which a full catalog has for less.
    while true {
      if case .made(let id) = try createOnce(namespace, sweeping: false) { return id }
      if try unlessFull(sweep) > 0 { continue }
      if try unlessFull(evictColdest) > 0 { continue }
      roundCount += 1
      guard roundCount <= Self.roundCountMax, !identities.isFull,
        try unlessFull(makeCatalogRoom) > 0
      else { throw .full }
    }
  }

  /// What a removal has removed; 0 when the catalog has no pages for it.
  private func unlessFull(
    _ body: () throws(StoreError) -> Int
  ) throws(StoreError) -> Int {
    do throws(StoreError) { return try body() } catch {
      guard error == .full else { throw error }
      return 0
    }
  }

  private enum Creation {
    case made(NamespaceID?)
    case noRoom
  }

  private func createOnce(
    _ namespace: NamespaceRow,
    sweeping: Bool
  ) throws(StoreError) -> Creation {
    let seizure = sweeping ? holds.map(Seizure.init) : nil
    defer { withExtendedLifetime(seizure) {} }
    var held: NamespaceID?
    do throws(StoreError) {
      try writer.commit { (transaction) throws(CatalogError) in
        guard try transaction.namespaceID(rootKey: namespace.rootKey) == nil else { return }
        if let seizure { _ = try removeEmpty(transaction, limit: Self.lookCount, seizure) }
        let id = try transaction.createNamespace(namespace)
        if holds?.hold(id) == true { held = id }
        // Before the row is durable, so that slot files can always be read without the catalog.
        let identity = IdentityFile.Identity(id: id, record: namespace.identityRecord)
        try identities.append([.identity(identity)], transaction)
      }
      return .made(held)
    } catch {
      if let held { holds?.release(held) }
      guard error == .full else { throw error }
      return .noRoom
    }
  }

  // MARK: Removing

  /// Removes all that hold nothing; returns how many.
  func sweep() throws(StoreError) -> Int {
    var removedCount = 0
    next.withLock { $0 = NamespaceID(rawValue: 0) }
    repeat { removedCount += try sweepSome() } while next.withLock { $0.rawValue } != 0
    try condense()
    return removedCount
  }

  /// Looks at some, and removes those that hold nothing; returns how many.
  ///
  /// Fewer where the pages that LMDB copies for it do not fit into the catalog.
  func sweepSome() throws(StoreError) -> Int {
    var limit = Self.sweepCount
    while true {
      do throws(StoreError) { return try sweepSome(limit) } catch {
        guard error == .full, limit > Self.lookCount else { throw error }
        limit /= 8
      }
    }
  }

  private func sweepSome(_ limit: Int) throws(StoreError) -> Int {
    guard let seizure = holds.map(Seizure.init) else { return 0 }
    defer { withExtendedLifetime(seizure) {} }
    // A commit costs syncs, and pages that a full catalog has not got: only where there is something to remove.
    let first = next.withLock { $0 }
    let (empty, following) = try catalog.lookUp { (transaction) throws(CatalogError) in
      try transaction.emptyNamespaces(from: first, limit: limit, now: time.now())
    }
    guard !empty.isEmpty else {
      next.withLock { $0 = following ?? NamespaceID(rawValue: 0) }
      return 0
    }
    do throws(StoreError) {
      return try writer.commit { (transaction) throws(CatalogError) in
        try removeEmpty(transaction, limit: limit, seizure)
      }
    } catch {
      next.withLock { $0 = first }
      throw error
    }
  }

  /// What removed namespaces left in `identities.kvs`, where it is worth it.
  private func condense() throws(StoreError) {
    try writer.commit { (transaction) throws(CatalogError) in try identities.condense(transaction) }
  }

  private func removeEmpty(
    _ transaction: WriteTransaction,
    limit: Int,
    _ seizure: Seizure
  ) throws(CatalogError) -> Int {
    let first = next.withLock { $0 }
    let (empty, next) = try transaction.emptyNamespaces(
      from: first,
      limit: limit,
      now: time.now()
    )
    self.next.withLock { $0 = next ?? NamespaceID(rawValue: 0) }
    var count = 0
    for id in empty where seizure.take(id) {
      try transaction.removeNamespace(id)
      count += 1
    }
    return count
  }

  /// Removes namespaces with their blocks, those that were used longest ago; returns how many.
  private func evictColdest() throws(StoreError) -> Int {
    guard let seizure = holds.map(Seizure.init) else { return 0 }
    defer { withExtendedLifetime(seizure) {} }
    var candidates: [(id: NamespaceID, newestStamp: UInt64)] = []
    let removedCount = try writer.evict { (eviction) throws(CatalogError) in
      let transaction = eviction.transaction
      if candidates.isEmpty {
        for id in try transaction.namespaceIDs() where candidates.count < Self.candidateCount {
          guard try transaction.namespace(id)?.quotaBytes == 0, seizure.take(id) else { continue }
          candidates.append((id, try transaction.newestStamp(of: id)))
        }
        candidates.sort { $0.newestStamp < $1.newestStamp }
      }
      var count = 0
      for candidate in candidates.prefix(max(1, candidates.count / 4)) {
        guard try eviction.evictAll(of: candidate.id),
          // A damaged row has no place in the order of eviction, and a pin may hold nothing.
          try transaction.emptyNamespaces(among: [candidate.id], now: time.now()) == [candidate.id]
        else { continue }
        try transaction.removeNamespace(candidate.id)
        count += 1
      }
      return count
    }
    if removedCount > 0 { try condense() }
    return removedCount
  }
}
