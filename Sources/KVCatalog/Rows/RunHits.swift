package import KVCore

/// Look-ups that ended in a run of blocks, or in one that hung below it and has left.
///
/// A row of `runhits`: u64 look-ups, u64 tokens.
package struct RunHits: Sendable, Equatable {
  package var hitCount: UInt64 = 0
  /// Tokens that they found, from the root on.
  package var tokenCount: UInt64 = 0

  package init() {}

  package init(hitCount: UInt64, tokenCount: UInt64) {
    self.hitCount = hitCount
    self.tokenCount = tokenCount
  }

  init(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    hitCount = reader.read(UInt64.self) ?? 0
    tokenCount = reader.read(UInt64.self) ?? 0
  }

  package mutating func add(_ other: RunHits) {
    hitCount &+= other.hitCount
    tokenCount &+= other.tokenCount
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 16)
    writer.append(hitCount)
    writer.append(tokenCount)
    return writer.bytes
  }
}

extension ReadTransaction {
  /// Look-ups that ended in a run; zeros where none was counted, or the row is damaged.
  package func runHits(_ namespace: NamespaceID, _ run: RunID) throws(CatalogError) -> RunHits {
    do throws(CatalogError) {
      guard let value = unsafe try getChecked(.runHits, .runHits(namespace, run)) else {
        return RunHits()
      }
      return unsafe RunHits(value)
    } catch {
      // For people to look at: never in the way of anything.
      guard case .corrupt = error else { throw error }
      return RunHits()
    }
  }
}

extension WriteTransaction {
  /// Runs whose look-ups are counted: as many as a 32nd of the map holds; a row takes up to 80 bytes of it.
  private var runHitCountMax: Int { max(64, mapByteCount / 32 / 80) }

  /// Adds to what is counted of a run that is there.
  func addRunHits(
    _ namespace: NamespaceID,
    _ run: RunID,
    _ hits: RunHits
  ) throws(CatalogError) {
    guard hits.hitCount > 0, has(.runHits),
      try containsRow(namespace, BlockPosition(run: run, position: 0))
    else { return }
    let key = TableKey.runHits(namespace, run)
    let isNew = try !contains(.runHits, key)
    // Where there is no room for more, the runs that are counted already go on being counted.
    let rowCount = try entryCount(.runHits)
    guard !isNew || rowCount < runHitCountMax else { return }
    var sum = try runHits(namespace, run)
    sum.add(hits)
    try put(.runHits, key, sum.encoded)
  }

  /// Of a run that leaves.
  func takeRunHits(_ namespace: NamespaceID, _ run: RunID) throws(CatalogError) -> RunHits {
    guard has(.runHits), try contains(.runHits, .runHits(namespace, run)) else { return RunHits() }
    let hits = try runHits(namespace, run)
    try delete(.runHits, .runHits(namespace, run))
    return hits
  }

  /// A run has left: what was found in it went through the run above.
  func handUpRunHits(
    _ namespace: NamespaceID,
    _ run: RunID,
    to parent: BlockPosition
  ) throws(CatalogError) {
    let hits = try takeRunHits(namespace, run)
    if parent != .root { try addRunHits(namespace, parent.run, hits) }
  }
}
