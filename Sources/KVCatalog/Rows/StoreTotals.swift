package import KVCore

/// What all processes together have done with a store since it was made, as far as it was committed.
package struct StoreTotals: Sendable, Equatable {
  /// Blocks and payload bytes that were offloaded.
  package var blocksOffloaded: UInt64 = 0
  package var payloadBytesOffloaded: UInt64 = 0
  /// Bytes written to slot files.
  package var diskBytesWritten: UInt64 = 0
  package var archiveBytesWritten: UInt64 = 0
  /// Payload bytes that were moved to the archive.
  package var payloadBytesDemoted: UInt64 = 0
  /// Synced commits of the catalog.
  package var commits: UInt64 = 0
  /// Of look-ups that were no peeks.
  package var matchCalls: UInt64 = 0
  package var tokensAsked: UInt64 = 0
  package var tokensFound: UInt64 = 0
  package var blocksFoundHost: UInt64 = 0
  package var blocksFoundDisk: UInt64 = 0
  package var blocksFoundArchive: UInt64 = 0
  package var blocksQuarantined: UInt64 = 0
  package var blocksEvicted: UInt64 = 0
  package var blocksExpired: UInt64 = 0
  /// How the process that committed last moves the bytes of slot files: 0 = it has opened none, 1 O_DIRECT, 2 through the page cache.
  package var ioPath: UInt64 = 0
  /// Bytes that commits wrote to the catalog's file.
  package var catalogBytesWritten: UInt64 = 0

  package init() {}

  /// In the order of the format; behind them the I/O path, then those that came later.
  private static let fields: [any WritableKeyPath<StoreTotals, UInt64> & Sendable] = [
    \.blocksOffloaded, \.payloadBytesOffloaded, \.diskBytesWritten, \.archiveBytesWritten,
    \.payloadBytesDemoted, \.commits, \.matchCalls, \.tokensAsked, \.tokensFound,
    \.blocksFoundHost, \.blocksFoundDisk, \.blocksFoundArchive, \.blocksQuarantined,
    \.blocksEvicted, \.blocksExpired,
  ]

  private static let laterFields: [any WritableKeyPath<StoreTotals, UInt64> & Sendable] = [
    \.catalogBytesWritten
  ]

  static var encodedByteCount: Int { 8 * (fields.count + 1 + laterFields.count) }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: Self.encodedByteCount)
    for field in Self.fields { writer.append(self[keyPath: field]) }
    writer.append(ioPath)
    for field in Self.laterFields { writer.append(self[keyPath: field]) }
    return writer.bytes
  }

  init(_ bytes: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(bytes)
    for field in Self.fields { self[keyPath: field] = reader.read(UInt64.self) ?? 0 }
    ioPath = reader.read(UInt64.self) ?? 0
    for field in Self.laterFields { self[keyPath: field] = reader.read(UInt64.self) ?? 0 }
  }

  /// `now` − `before`, added; of the I/O path the later.
  package mutating func add(_ now: StoreTotals, since before: StoreTotals) {
    for field in Self.fields + Self.laterFields {
      self[keyPath: field] &+= now[keyPath: field] &- before[keyPath: field]
    }
    if now.ioPath != 0 { ioPath = now.ioPath }
  }
}

/// Matches that ended in a run.
package struct PrefixHits: Sendable, Equatable {
  package var namespace: NamespaceID
  package var run: RunID
  package var hitCount: UInt64
  /// Tokens that did not have to be computed.
  package var tokenCount: UInt64
  /// At most so many of the tokens are another run's, whose place this one took.
  package var tokenCountError: UInt64

  package init(
    namespace: NamespaceID,
    run: RunID,
    hitCount: UInt64,
    tokenCount: UInt64,
    tokenCountError: UInt64 = 0
  ) {
    self.namespace = namespace
    self.run = run
    self.hitCount = hitCount
    self.tokenCount = tokenCount
    self.tokenCountError = tokenCountError
  }
}

/// The runs whose prefixes saved most, in bounded room.
///
/// "Space-Saving" (Metwally, Agrawal, El Abbadi 2005), weighted by tokens: a run that is not listed takes the place of the one with the
/// fewest tokens, and its tokens as an error. Runs with more than 1/`countMax` of all tokens are in it, surely.
package struct PrefixHitList: Sendable {
  /// The row stays in the page of the table's others.
  package static let countMax = 40

  package private(set) var entries: [PrefixHits] = []

  package init() {}

  package mutating func add(_ hits: PrefixHits, isThere: (PrefixHits) throws(CatalogError) -> Bool)
    throws(CatalogError)
  {
    if let index = entries.firstIndex(where: { $0.isSameRun(as: hits) }) {
      entries[index].hitCount &+= hits.hitCount
      entries[index].tokenCount &+= hits.tokenCount
      return
    }
    if entries.count >= Self.countMax {
      // Those whose blocks have left go first.
      var kept: [PrefixHits] = []
      for entry in entries where try isThere(entry) { kept.append(entry) }
      entries = kept
    }
    guard entries.count >= Self.countMax else { return entries.append(hits) }
    guard let least = entries.indices.min(by: { entries[$0].tokenCount < entries[$1].tokenCount })
    else { return }
    var new = hits
    new.tokenCountError = entries[least].tokenCount
    new.tokenCount &+= new.tokenCountError
    entries[least] = new
  }

  private static let entryByteCount = 36

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: entries.count * Self.entryByteCount)
    for entry in entries {
      writer.append(entry.namespace.rawValue)
      writer.append(entry.run.rawValue)
      writer.append(entry.hitCount)
      writer.append(entry.tokenCount)
      writer.append(entry.tokenCountError)
    }
    return writer.bytes
  }

  init(_ bytes: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(bytes)
    while entries.count < Self.countMax, let namespace = reader.read(UInt32.self),
      let run = reader.read(UInt64.self), let hitCount = reader.read(UInt64.self),
      let tokenCount = reader.read(UInt64.self), let error = reader.read(UInt64.self)
    {
      entries.append(
        PrefixHits(
          namespace: NamespaceID(rawValue: namespace),
          run: RunID(rawValue: run),
          hitCount: hitCount,
          tokenCount: tokenCount,
          tokenCountError: error
        )
      )
    }
  }
}

extension PrefixHits {
  fileprivate func isSameRun(as other: PrefixHits) -> Bool {
    namespace == other.namespace && run == other.run
  }
}

extension ReadTransaction {
  /// What was done with the store since it was made; zeros for one that was made before this was counted.
  package func totals() throws(CatalogError) -> StoreTotals {
    guard let value = unsafe try getChecked(.meta, .meta(.totals)) else { return StoreTotals() }
    return unsafe StoreTotals(value)
  }

  /// The runs whose prefixes saved most.
  package func prefixHits() throws(CatalogError) -> PrefixHitList {
    guard let value = unsafe try getChecked(.meta, .meta(.hits)) else { return PrefixHitList() }
    return unsafe PrefixHitList(value)
  }
}

extension WriteTransaction {
  /// Adds what this process did, if the transaction changes anything else: for this alone a store does not write.
  ///
  /// - Parameters:
  ///   - now: this process's counters.
  ///   - before: what they were when they were recorded last.
  ///   - hits: matches since then.
  /// - Returns: whether it was recorded.
  /// - Throws: `CatalogError`.
  package func record(
    _ now: StoreTotals,
    since before: StoreTotals,
    _ hits: [PrefixHits]
  ) throws(CatalogError) -> Bool {
    try settle()
    guard isChanged else { return false }
    // For people to look at: a damaged row begins anew, and is never in the way of blocks.
    var totals = (try? self.totals()) ?? StoreTotals()
    totals.add(now, since: before)
    try put(.meta, .meta(.totals), totals.encoded)
    try recordHistory(now, since: before)
    guard !hits.isEmpty else { return true }
    var list = (try? prefixHits()) ?? PrefixHitList()
    for hit in hits {
      try list.add(hit) { (entry) throws(CatalogError) in
        try containsRow(entry.namespace, BlockPosition(run: entry.run, position: 0))
      }
    }
    try put(.meta, .meta(.hits), list.encoded)
    for hit in hits {
      try addRunHits(
        hit.namespace,
        hit.run,
        RunHits(hitCount: hit.hitCount, tokenCount: hit.tokenCount)
      )
    }
    return true
  }
}
