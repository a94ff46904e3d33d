public import KVCore

/// Side sections: state at block boundaries that is no KV of tokens, as recurrent layers have it.
///
/// A section is a block of a namespace of its own, which its owner's identity and a name make up. It is found by the digest of the
/// whole prefix that it stands behind, so tiers, eviction, expiry, checks and repair are those of every block.
extension Namespace {
  /// Opens the namespace of one kind of sections beside this one's blocks, creating it when absent.
  ///
  /// New ones live as long as this namespace's blocks do by default.
  ///
  /// - Parameters:
  ///   - name: what the engine calls the state.
  ///   - byteCountMax: the most bytes of one section; another bound is another namespace.
  ///   - quotaBytes: as a namespace's; nil leaves it.
  /// - Returns: a namespace in digest mode, with one region of variable length.
  /// - Throws: `StoreError`.
  public func openSection(
    _ name: String,
    byteCountMax: Int,
    quotaBytes: UInt64? = nil
  ) throws(StoreError) -> Namespace {
    try store.enter()
    defer { store.leave() }
    guard owner == nil else { throw .invalidArgument(.sectionName) }
    guard (1...1 << 30).contains(byteCountMax) else { throw .invalidArgument(.regionByteCount) }
    var limits = NamespaceLimits()
    limits.quotaBytes = quotaBytes
    if core.expiry.timeToLive != .unlimited { limits.timeToLive = core.expiry.timeToLive }
    let identity = core.identity.ofSections(
      named: name,
      byteCountMax: byteCountMax,
      record: core.record
    )
    let section = try store.core.openNamespace(identity, limits)
    section.core.sectionOwner.withLock { $0 = core.identity }
    return Namespace(store: store, section, beside: store.core.use(again: core))
  }

  /// What this section's block behind a prefix is found by: a whole digest, for a prompt of one block.
  ///
  /// - Parameters:
  ///   - prompt: of the owner.
  ///   - blockCount: leading blocks of it; nil = all full ones.
  /// - Returns: as many bytes as a digest of this namespace has.
  /// - Throws: `StoreError`; this must be a section, and the prefix not empty.
  public func sectionDigest(
    _ prompt: Prompt,
    blockCount: Int? = nil
  ) throws(StoreError) -> [UInt8] {
    try store.enter()
    defer { store.leave() }
    guard let owner else { throw .invalidArgument(.namespace) }
    try owner.check(prompt, wholeBlocks: false)
    let available = owner.blockCount(of: prompt)
    let count = blockCount ?? available
    guard count >= 1, count <= available else { throw .invalidArgument(.blockRange) }
    let digest = owner.sectionDigests(of: prompt, upTo: count).digest(ofBlocks: count)
    store.core.remote?.notePrefix(
      of: core,
      digest: digest,
      owner,
      prompt,
      blockCount: count
    )
    return digest
  }

  /// The longest stored prefix at whose end all of these sections are stored too, with a lease on each of them.
  ///
  /// - Parameters:
  ///   - prompt: from its first token on; a rest that fills no block is allowed.
  ///   - sections: opened from this namespace; none: a plain match.
  ///   - options: as for `match`.
  ///   - leaseNanoseconds: as for `match`.
  /// - Returns: of this namespace, then of each section (one block, or none). When one lacks a lease, none has one.
  /// - Throws: `StoreError`.
  public func match(
    _ prompt: Prompt,
    with sections: [Namespace],
    options: MatchOptions = [],
    leaseNanoseconds: UInt64 = 0
  ) throws(StoreError) -> [MatchResult] {
    guard sections.allSatisfy({ $0.owner === core && $0.store === store }) else {
      throw .invalidArgument(.namespace)
    }
    guard !sections.isEmpty else {
      return [try match(prompt, options: options, leaseNanoseconds: leaseNanoseconds)]
    }
    let remote = store.core.remote
    let asks = remote?.isAsked(by: options) ?? false
    let began = asks ? monotonicNanoseconds() : 0
    // What the remote tier has is of use only where sections are: it is asked below.
    let local = options.subtracting(.remote)
    let peek = try match(prompt, options: local.union(.peek), blockCountMax: .max)
    var results = try usable(prompt, peek.blockCount, sections, local, leaseNanoseconds)
    if asks, let remote {
      try store.enter()
      defer { store.leave() }
      remote.lookUp(
        store.core,
        core,
        sections.map(\.core),
        prompt,
        storedBlockCount: peek.blockCount,
        blockCountMax: core.matchBlockCount(of: prompt, options),
        since: began,
        into: &results[0]
      )
    }
    return results
  }

  /// The longest of the prompt's leading `storedBlockCount` prefixes at whose end all of the sections are.
  private func usable(
    _ prompt: Prompt,
    _ storedBlockCount: Int,
    _ sections: [Namespace],
    _ options: MatchOptions,
    _ leaseNanoseconds: UInt64
  ) throws(StoreError) -> [MatchResult] {
    let digests = core.sectionDigests(of: prompt, upTo: storedBlockCount)
    var blockCount = storedBlockCount
    while blockCount > 0 {
      let digest = digests.digest(ofBlocks: blockCount)
      let words = wordsOfDigest(digest)
      // Looks first: a lease is taken, and a use recorded, only where everything is there.
      var isStored = true
      for section in sections where isStored {
        isStored = try section.matchSection(words, options: .peek).blockCount == 1
      }
      if isStored {
        if !options.contains(.peek), let remote = store.core.remote {
          for section in sections {
            remote.notePrefix(
              of: section.core,
              digest: digest,
              core,
              prompt,
              blockCount: blockCount
            )
          }
        }
        let results = try leased(prompt, blockCount, sections, words, options, leaseNanoseconds)
        if let results { return results }
      }
      blockCount -= 1
    }
    return [MatchResult](repeating: MatchResult(), count: sections.count + 1)
  }

  /// Nil when something left since it was looked at.
  private func leased(
    _ prompt: Prompt,
    _ blockCount: Int,
    _ sections: [Namespace],
    _ words: [UInt32],
    _ options: MatchOptions,
    _ leaseNanoseconds: UInt64
  ) throws(StoreError) -> [MatchResult]? {
    var results: [MatchResult] = []
    do throws(StoreError) {
      results.append(
        try match(
          prompt,
          options: options,
          leaseNanoseconds: leaseNanoseconds,
          blockCountMax: blockCount
        )
      )
      for section in sections {
        let options = options.intersection(.peek)
        results.append(try section.matchSection(words, options: options, leaseNanoseconds))
      }
    } catch {
      for result in results { release(result) }
      throw error
    }
    let isWhole =
      results[0].blockCount == blockCount && results.dropFirst().allSatisfy { $0.blockCount == 1 }
    let isRefused = results.contains { $0.leaseRefused }
    if isWhole, !isRefused { return results }
    for result in results { release(result) }
    guard isWhole else { return nil }
    return results.map { result in
      var result = result
      result.lease = 0
      result.leaseRefused = true
      return result
    }
  }

  /// Whether the block of this digest is there.
  private func matchSection(
    _ words: [UInt32],
    options: MatchOptions,
    _ leaseNanoseconds: UInt64 = 0
  ) throws(StoreError) -> MatchResult {
    try Prompt.with(words) { (prompt) throws(StoreError) in
      try match(
        prompt,
        options: options,
        leaseNanoseconds: leaseNanoseconds,
        blockCountMax: 1
      )
    }
  }
}

/// A digest's bytes as the words of a prompt in digest mode.
func wordsOfDigest(_ digest: [UInt8]) -> [UInt32] {
  unsafe digest.withUnsafeBytes { bytes in
    (0..<bytes.count / 4).map { index in
      unsafe bytes.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)
    }
  }
}
