internal import KVCodec
internal import KVCore
internal import KVPolicy
internal import KVRemote

/// What a remote tier knows and counts; nothing in it grows without end.
struct RemoteState {
  /// A namespace of this process.
  struct Known {
    let core: NamespaceCore
    /// nil: it stays local.
    let remote: RemoteNamespace?
    /// How its payloads are encoded there, once one was.
    var format: PayloadFormat?
  }

  /// What a section stands behind, which its own path does not tell.
  struct SectionPrefix {
    let owner: NamespaceCore
    let lastKey: BlockKey
    let blockCount: Int
  }

  /// The identity record that lies there under a namespace's name.
  enum Identity {
    case unknown
    case same
    /// Another one: nothing of the namespace is read or written.
    case other
    case absent
  }

  /// What tells one look-up from another.
  struct FetchName: Hashable {
    let namespace: NamespaceID
    /// Of the prompt's whole chunks.
    let blockCount: Int
    /// Of their words and extra bytes: what is stored here grows while it goes on.
    let digest: BlockKey
  }

  struct FetchState {
    /// nil while it is under way.
    var endedAt: UInt64?
    /// Blocks that it found there, and has not brought yet.
    var blockCount = 0
    /// For people; nil before it asked.
    var lookUp: RemoteLookUp?
  }

  /// A server may have a namespace for each of its tenants.
  private static let namespaceCountMax = 1024
  private static let identityCountMax = 16_384
  /// So long it is believed what record lies there.
  private static let identityNanoseconds: UInt64 = 60_000_000_000
  private static let fetchCountMax = 256

  var breaker: CircuitBreaker
  var statistics = RemoteStatistics()
  var budget: Admission
  var bandwidth = BandwidthAverage()
  var roundNanoseconds: UInt64 = 0
  var demotions = RemoteDemotions()
  /// Until then nothing is written.
  var pausedUntil: UInt64 = 0
  /// In two generations, as `KnownChunks`; so are the identities.
  private var namespaces: [NamespaceID: Known] = [:]
  private var olderNamespaces: [NamespaceID: Known] = [:]
  private var identities: [NamespaceID: (identity: Identity, endsAt: UInt64)] = [:]
  private var olderIdentities: [NamespaceID: (identity: Identity, endsAt: UInt64)] = [:]
  private(set) var fetches: [FetchName: FetchState] = [:]
  var known = KnownChunks()
  /// How it stands with the other side.
  var standing = RemoteStanding()
  /// Why writing waits until `pausedUntil`.
  var pauseCause: RemoteStatistics.Cause?
  /// Look-ups that ended, the last one last.
  private(set) var ended: [RemoteLookUp] = []
  /// Paths whose use was looked at.
  private var uses = KnownChunks()
  /// By the hash of a section's digest, in two generations as `KnownChunks`.
  private var prefixes: [BlockKey: SectionPrefix] = [:]
  private var olderPrefixes: [BlockKey: SectionPrefix] = [:]
  private static let prefixCountMax = 1024

  /// So long a look-up that ended is not made again: others' writes are seen after that.
  private let pauseNanoseconds: UInt64

  init(budget: Admission, pauseNanoseconds: UInt64) {
    self.budget = budget
    self.pauseNanoseconds = pauseNanoseconds
    breaker = CircuitBreaker(pauseNanoseconds: pauseNanoseconds)
  }

  mutating func add(_ known: Known) {
    // They come again with their next call.
    if namespaces.count >= Self.namespaceCountMax {
      (olderNamespaces, namespaces) = (namespaces, [:])
    }
    namespaces[known.core.id] = known
  }

  func namespace(_ id: NamespaceID) -> Known? { namespaces[id] ?? olderNamespaces[id] }

  func identity(of id: NamespaceID, now: UInt64) -> Identity {
    guard let known = identities[id] ?? olderIdentities[id], now < known.endsAt else {
      return .unknown
    }
    return known.identity
  }

  mutating func noteIdentity(_ identity: Identity, of id: NamespaceID, now: UInt64) {
    if identities.count >= Self.identityCountMax {
      (olderIdentities, identities) = (identities, [:])
    }
    identities[id] = (identity, now &+ Self.identityNanoseconds)
  }

  func format(of id: NamespaceID) -> PayloadFormat? { namespace(id)?.format }

  mutating func noteFormat(_ format: PayloadFormat, of id: NamespaceID) {
    guard var known = namespace(id) else { return }
    known.format = format
    add(known)
  }

  mutating func notePrefix(_ prefix: SectionPrefix, of digest: BlockKey) {
    if prefixes.count >= Self.prefixCountMax { (olderPrefixes, prefixes) = (prefixes, [:]) }
    prefixes[digest] = prefix
  }

  func prefix(of digest: BlockKey) -> SectionPrefix? { prefixes[digest] ?? olderPrefixes[digest] }

  /// Whether a look-up is to be made: it is not under way, and did not end just now.
  mutating func beginFetch(_ name: FetchName, now: UInt64) -> Bool {
    if let known = fetches[name] {
      guard let end = known.endedAt, now >= end &+ pauseNanoseconds else { return false }
    }
    if fetches.count >= Self.fetchCountMax {
      fetches = fetches.filter { [pauseNanoseconds] fetch in
        fetch.value.endedAt.map { now < $0 &+ pauseNanoseconds } ?? true
      }
      // Those under way are fewer.
      if fetches.count >= Self.fetchCountMax {
        fetches = fetches.filter { $0.value.endedAt == nil }
      }
    }
    fetches[name] = FetchState()
    return true
  }

  mutating func noteFound(_ name: FetchName, blockCount: Int) {
    fetches[name]?.blockCount = blockCount
    fetches[name]?.lookUp?.foundBlockCount = blockCount
    if blockCount > 0 { statistics.lookUpsFound += 1 }
  }

  mutating func noteFetched(_ name: FetchName, blockCount: Int) {
    fetches[name]?.lookUp?.fetchedBlockCount += blockCount
  }

  mutating func endFetch(_ name: FetchName, now: UInt64) {
    if var lookUp = fetches[name]?.lookUp {
      lookUp.endedAt = now
      ended.removeAll { $0.namespace == lookUp.namespace && $0.blockKey == lookUp.blockKey }
      if ended.count >= RemoteLookUp.countMax { ended.removeFirst() }
      ended.append(lookUp)
    }
    fetches[name] = FetchState(endedAt: now)
  }

  /// A look-up begins to ask about what is behind a block.
  mutating func noteAsked(_ name: FetchName, blockCount: Int, _ blockKey: BlockKey) {
    fetches[name]?.lookUp = RemoteLookUp(
      namespace: name.namespace,
      blockCount: blockCount,
      blockKey: blockKey
    )
  }

  mutating func noteMiss(_ name: FetchName?, _ cause: RemoteStatistics.Cause) {
    statistics.noteMiss(cause)
    guard let name else { return }
    // The first one ended it.
    if fetches[name]?.lookUp?.cause == nil { fetches[name]?.lookUp?.cause = cause }
  }

  /// Those under way, then those that ended, the last one first.
  var lookUps: [RemoteLookUp] {
    let underWay = fetches.values.filter { $0.endedAt == nil }.compactMap(\.lookUp)
    return Array((underWay + ended.reversed()).prefix(RemoteLookUp.countMax))
  }

  /// What was there may be another thing by now.
  mutating func forgetKnown() {
    known.removeAll()
    uses.removeAll()
    identities = [:]
    olderIdentities = [:]
  }

  /// Whether a use of a path, with so many chunks down to a block of a run, is to be looked at: it was not for a while.
  mutating func noteUse(_ namespace: NamespaceID, _ run: RunID, _ chunkCount: Int) -> Bool {
    let key = BlockKey(
      high: UInt64(namespace.rawValue) << 32 | UInt64(chunkCount & 0xFFFF_FFFF),
      low: run.rawValue
    )
    guard !uses.contains(key) else { return false }
    uses.insert(key, now: monotonicNanoseconds())
    return true
  }

  mutating func noteRound(nanoseconds: UInt64) {
    roundNanoseconds =
      roundNanoseconds == 0 ? nanoseconds : (roundNanoseconds * 7 + nanoseconds) / 8
  }
}

/// Chunks that were seen to be there, in two generations: when the newer one is full or old, it becomes the older one.
///
/// A hint: what the server evicts since is missed until then.
struct KnownChunks {
  private static let countMax = 65_536
  private static let nanoseconds: UInt64 = 300_000_000_000
  private var newer: Set<BlockKey> = []
  private var older: Set<BlockKey> = []
  private var turnsAt: UInt64 = 0

  func contains(_ key: BlockKey) -> Bool { newer.contains(key) || older.contains(key) }

  mutating func insert(_ key: BlockKey, now: UInt64) {
    if newer.count >= Self.countMax || now >= turnsAt {
      older = newer
      newer = []
      turnsAt = now &+ Self.nanoseconds
    }
    newer.insert(key)
  }

  mutating func remove(_ key: BlockKey) {
    newer.remove(key)
    older.remove(key)
  }

  mutating func removeAll() {
    newer = []
    older = []
  }
}

extension RemoteNamespace {
  /// Tells chunks of all namespaces apart.
  func known(_ lastBlockKey: BlockKey) -> BlockKey {
    BlockKey(
      high: lastBlockKey.high ^ chain.rootKey.high,
      low: lastBlockKey.low ^ chain.rootKey.low
    )
  }
}
