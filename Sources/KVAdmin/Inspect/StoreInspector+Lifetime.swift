internal import KVCatalog
public import KVCore
public import KVStore

extension StoreInspector {
  /// What all processes together have done with the store since it was made, as far as they have committed it.
  public struct Lifetime: Sendable {
    /// Blocks that were offloaded.
    public var blocksOffloaded: UInt64
    /// Their payload.
    public var payloadBytesOffloaded: UInt64
    /// Bytes written to the disk tier's slot files.
    public var diskBytesWritten: UInt64
    /// Bytes written to the archive's slot files.
    public var archiveBytesWritten: UInt64
    /// Payload that was moved to the archive.
    public var payloadBytesDemoted: UInt64
    /// Synced commits of the catalog.
    public var commits: UInt64
    /// Bytes that these wrote.
    public var catalogBytesWritten: UInt64
    /// Look-ups that were no peeks.
    public var matchCalls: UInt64
    /// Tokens of the prompts that were looked up.
    public var tokensAsked: UInt64
    /// Of those, the leading ones that were stored.
    public var tokensFound: UInt64
    /// Blocks that were found in RAM.
    public var blocksFoundHost: UInt64
    /// Blocks that were found on disk.
    public var blocksFoundDisk: UInt64
    /// Blocks that were found in the archive.
    public var blocksFoundArchive: UInt64
    /// Blocks that failed a check and were set aside.
    public var blocksQuarantined: UInt64
    /// Blocks that left for others.
    public var blocksEvicted: UInt64
    /// Blocks whose life was over.
    public var blocksExpired: UInt64
    /// How the process that committed last reads and writes slot files.
    public var ioPath: IOPath
  }

  /// A prefix that look-ups found.
  public struct UsedPrefix: Sendable {
    /// Whose it is.
    public var namespace: NamespaceID
    /// The run that those look-ups ended in.
    public var run: RunID
    /// How many they were.
    public var hitCount: UInt64
    /// Tokens that did not have to be computed.
    public var tokenCount: UInt64
    /// At most so many of these are those of a run that is not listed any more.
    public var tokenCountError: UInt64
    /// Blocks down to the run's last one.
    public var blockCount: Int
    /// Key of the run's first block.
    public var firstBlockKey: BlockKey
    /// Words of the prefix' first block.
    public var firstWords: [UInt32]
  }

  /// A process that has the store open for writing.
  public struct Owner: Sendable, Equatable {
    /// Its number in the store.
    public var number: UInt32
    /// Its number in the operating system.
    public var processID: Int32
    /// What the operating system calls it; empty when it does not say.
    public var name: String
    /// What it holds in memory, a second ago at most; nil when it does not say.
    public var memory: ProcessMemory?
    /// What it says of its remote tier, likewise; nil when it has none.
    public var remote: RemoteReport?
  }

  /// What was done with the store since it was made.
  public func lifetime() throws(StoreError) -> Lifetime {
    let totals = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.totals()
    }
    return Lifetime(totals)
  }

  /// The stored prefixes that saved most tokens, first the one that saved most.
  ///
  /// At most 40; a prefix that saved more than a fortieth of all is among them.
  public func topPrefixes(limit: Int) throws(StoreError) -> [UsedPrefix] {
    let entries = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.prefixHits().entries.sorted {
        ($0.tokenCount - min($0.tokenCount, $0.tokenCountError), $1.run.rawValue)
          > ($1.tokenCount - min($1.tokenCount, $1.tokenCountError), $0.run.rawValue)
      }
    }
    var prefixes: [UsedPrefix] = []
    for entry in entries where prefixes.count < limit {
      // What has left saves nothing any more.
      if let prefix = try usedPrefix(entry) { prefixes.append(prefix) }
    }
    return prefixes
  }

  private func usedPrefix(_ hits: PrefixHits) throws(StoreError) -> UsedPrefix? {
    try core.catalogRead { (transaction) throws(CatalogError) -> UsedPrefix? in
      let namespace = hits.namespace
      guard let last = try transaction.lastPosition(namespace, hits.run) else { return nil }
      var depth = Int(last) + 1
      var top = hits.run
      // A parent is older than its child, so this ends.
      while true {
        let first = BlockPosition(run: top, position: 0)
        guard let parent = try transaction.parent(namespace, first) else { return nil }
        guard parent != .root, parent.run < top else { break }
        depth += Int(parent.position) + 1
        top = parent.run
      }
      var firstWords: [UInt32] = []
      try transaction.forEachRow(namespace, top, from: 0, through: 0) { _, row in
        firstWords = row?.wordArray ?? []
        return false
      }
      let own = try transaction.row(namespace, BlockPosition(run: hits.run, position: 0))
      guard let own else { return nil }
      return UsedPrefix(
        namespace: namespace,
        run: hits.run,
        hitCount: hits.hitCount,
        tokenCount: hits.tokenCount,
        tokenCountError: hits.tokenCountError,
        blockCount: depth,
        firstBlockKey: own.blockKey,
        firstWords: firstWords
      )
    }
  }

  /// The processes that have the store open for writing now, this one included.
  ///
  /// Reads what they publish; none of them is asked or kept waiting.
  public func owners() -> [Owner] {
    let published = ProcessMemoryTable.read(
      core.sharedMemory.tablesPath,
      now: core.configuration.clock.bootTimeNanoseconds()
    )
    return core.ownerFiles.processes().map { owner, processID in
      Owner(
        number: owner.rawValue,
        processID: processID,
        name: OwnerFiles.processName(processID),
        memory: published[owner],
        remote: RemoteReportFile.read(core.sharedMemory.reportsFolder, owner)
      )
    }
  }
}

extension StoreInspector.Lifetime {
  init(_ totals: StoreTotals) {
    blocksOffloaded = totals.blocksOffloaded
    payloadBytesOffloaded = totals.payloadBytesOffloaded
    diskBytesWritten = totals.diskBytesWritten
    archiveBytesWritten = totals.archiveBytesWritten
    payloadBytesDemoted = totals.payloadBytesDemoted
    commits = totals.commits
    catalogBytesWritten = totals.catalogBytesWritten
    matchCalls = totals.matchCalls
    tokensAsked = totals.tokensAsked
    tokensFound = totals.tokensFound
    blocksFoundHost = totals.blocksFoundHost
    blocksFoundDisk = totals.blocksFoundDisk
    blocksFoundArchive = totals.blocksFoundArchive
    blocksQuarantined = totals.blocksQuarantined
    blocksEvicted = totals.blocksEvicted
    blocksExpired = totals.blocksExpired
    ioPath = totals.ioPath == 1 ? .direct : totals.ioPath == 2 ? .buffered : .none
  }
}
