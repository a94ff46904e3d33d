package import KVCore

/// A block's side sections leave with it, whatever the reason: they tell as much of a prompt as its blocks do.
///
/// They are found by the digest of the prefix that they stand behind, which takes the words of all blocks before. Only a namespace
/// that has sections pays for it.
extension WriteTransaction {
  /// The digests of the prefixes that end at these blocks, which are still there; empty when the namespace has no sections.
  ///
  /// Where a row is damaged, those from there on are left out.
  func sectionDigests(
    _ namespace: NamespaceID,
    _ run: RunID,
    _ positions: ClosedRange<UInt32>
  ) throws(CatalogError) -> [[UInt8]] {
    guard try hasSections(namespace), let row = try cachedNamespace(namespace),
      let identity = NamespaceIdentity(record: row.identityRecord)
    else { return [] }
    if identity.identityMode == .digest {
      var digests: [[UInt8]] = []
      try forEachRow(namespace, run, from: positions.lowerBound, through: positions.upperBound) {
        if let row = $1 { digests.append(unsafe Array(row.words)) }
        return true
      }
      return digests
    }
    let last = BlockPosition(run: run, position: positions.upperBound)
    try digestPrefixes(namespace, through: last)
    let known = prefixDigests[RunKey(namespace: namespace, run: run)] ?? []
    return known.dropFirst(Int(positions.lowerBound)).prefix(positions.count).map(\.bytes)
  }

  /// Removes what is stored behind the prefixes of these digests.
  ///
  /// An eviction leaves a section that is itself leased or pinned; it goes in its own turn.
  package func removeSections(
    of namespace: NamespaceID,
    _ digests: [[UInt8]],
    reason: RemovalReason
  ) throws(CatalogError) -> RemovedSummary {
    var summary = RemovedSummary()
    guard !digests.isEmpty else { return summary }
    for section in try sections(of: namespace) {
      for digest in digests where digest.count == section.chain.wordsPerBlock * 4 {
        let key = unsafe digest.withUnsafeBytes { words in
          unsafe section.chain.key(
            after: section.chain.rootKey,
            words: words.baseAddress.unsafelyUnwrapped,
            extra: UnsafeRawBufferPointer(start: nil, count: 0)
          )
        }
        guard let at = try find(section.id, key), !mustStay(at),
          try isSection(section.id, at, digest)
        else { continue }
        let removed = try removeSubtree(section.id, at: at, reason: reason)
        summary.addSections(removed)
        summary.sections.append(
          RemovedSummary.Section(
            namespace: section.id,
            rootKey: section.chain.rootKey,
            blockKey: key
          )
        )
      }
    }
    return summary
  }

  private func mustStay(_ at: BlockPosition) -> Bool {
    heldBlocks?.covers(at.run, at.position) ?? false
  }

  /// Whether it is the section of this digest, as its key says; a damaged row cannot tell, and goes.
  private func isSection(
    _ section: NamespaceID,
    _ at: BlockPosition,
    _ digest: [UInt8]
  ) throws(CatalogError) -> Bool {
    do throws(CatalogError) {
      return try row(section, at)?.words == digest
    } catch {
      guard case .corrupt = error else { throw error }
      return true
    }
  }

  /// Whether there is something to look for.
  private func hasSections(_ namespace: NamespaceID) throws(CatalogError) -> Bool {
    for section in try sections(of: namespace) {
      if let pending = accountings[section.id] {
        if pending.blockCount > 0 { return true }
      } else if try storedAccounting(section.id).blockCount > 0 {
        return true
      }
    }
    return false
  }

  /// The namespaces of a namespace's sections.
  private func sections(of owner: NamespaceID) throws(CatalogError) -> [SectionNamespace] {
    if let known = sectionsByOwner[owner] { return known }
    if !sectionsAreComplete {
      try sectionNamespaces.complete(self)
      sectionsAreComplete = true
    }
    var found: [SectionNamespace] = []
    if !sectionNamespaces.byOwner.isEmpty, let row = try cachedNamespace(owner) {
      for section in sectionNamespaces.byOwner[SHA256.hash(row.identityRecord)] ?? []
      where try cachedNamespace(section.id) != nil {
        found.append(section)
      }
    }
    sectionsByOwner[owner] = found
    return found
  }

  // MARK: Digests

  /// Prefixes whose digests are kept: one path of 131,072 tokens in blocks of 16 fits in.
  private static let prefixDigestCountMax = 16_384

  /// Completes `prefixDigests` for the blocks of a path.
  private func digestPrefixes(
    _ namespace: NamespaceID,
    through end: BlockPosition
  ) throws(CatalogError) {
    if prefixDigests.values.reduce(0, { $0 + $1.count }) > Self.prefixDigestCountMax {
      prefixDigests = [:]
    }
    // The runs of the path that are not known so far, the last one first.
    var missing: [BlockPosition] = []
    var at = end
    while at != .root {
      let known = prefixDigests[RunKey(namespace: namespace, run: at.run)]?.count ?? 0
      if known > Int(at.position) { break }
      missing.append(at)
      guard known == 0 else { break }
      guard let parent = try parentOfRun(namespace, at.run) else { return }
      at = parent
    }
    for last in missing.reversed() {
      let key = RunKey(namespace: namespace, run: last.run)
      var known = prefixDigests[key] ?? []
      var digest = PrefixDigest()
      if let before = known.last {
        digest = before
      } else if let parent = try parentOfRun(namespace, last.run), parent != .root {
        let above = prefixDigests[RunKey(namespace: namespace, run: parent.run)] ?? []
        guard above.count > Int(parent.position) else { return }
        digest = above[Int(parent.position)]
      }
      try forEachRow(
        namespace,
        last.run,
        from: UInt32(known.count),
        through: last.position
      ) { position, row in
        guard let row, Int(position) == known.count else { return false }
        unsafe digest.append(words: row.words, extra: row.extra)
        known.append(digest)
        return true
      }
      prefixDigests[key] = known
    }
  }

  /// Other blocks may come where these were.
  func forgetDigests(_ namespace: NamespaceID, _ run: RunID, from position: UInt32) {
    let key = RunKey(namespace: namespace, run: run)
    guard let known = prefixDigests[key] else { return }
    prefixDigests[key] = position == 0 ? nil : Array(known.prefix(Int(position)))
  }
}
