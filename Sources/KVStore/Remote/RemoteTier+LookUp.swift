internal import KVCore
internal import KVRemote

/// What an engine's thread does: it leaves a note and goes on.
extension RemoteTier {
  /// Lets what lies there behind a prompt's stored prefix be fetched, and says in the result that it is.
  ///
  /// No socket, no file, no wait: a lock, a hash of the rest of the prompt, and a copy of the prompt when there is a new look-up.
  func lookUp(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    since began: UInt64,
    into result: inout MatchResult
  ) {
    let stored = result.blockCount
    lookUp(core, namespace, [], prompt, since: began, into: &result) { remote in
      RemoteFetch.Range(
        storedBlockCount: stored,
        usableBlockCount: stored,
        blockCount: namespace.blockCount(of: prompt) / remote.blocksPerChunk * remote.blocksPerChunk
      )
    }
  }

  /// The same where a prefix is of use only up to a place where all of these sections are.
  ///
  /// Of `storedBlockCount` leading blocks that are stored here, with sections or without, the result tells the usable ones; nothing longer than
  /// `blockCountMax` is asked for.
  func lookUp(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ sections: [NamespaceCore],
    _ prompt: Prompt,
    storedBlockCount: Int,
    blockCountMax: Int,
    since began: UInt64,
    into result: inout MatchResult
  ) {
    let range = RemoteFetch.Range(
      storedBlockCount: storedBlockCount,
      usableBlockCount: result.blockCount,
      blockCount: blockCountMax
    )
    lookUp(core, namespace, sections, prompt, since: began, into: &result) { _ in range }
  }

  private func lookUp(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ sections: [NamespaceCore],
    _ prompt: Prompt,
    since began: UInt64,
    into result: inout MatchResult,
    _ range: (RemoteNamespace) -> RemoteFetch.Range
  ) {
    let keyBitCount = core.configuration.keyBitCount
    guard core.writer != nil, mayAsk(),
      let remote = self.namespace(namespace, keyBitCount: keyBitCount)
    else { return }
    let beside = sections.compactMap { self.namespace($0, keyBitCount: keyBitCount) }
    let range = range(remote)
    guard range.blockCount > range.usableBlockCount, beside.count == sections.count else { return }
    let name = Self.fetchName(namespace, sections, prompt, blockCount: range.blockCount)
    let now = monotonicNanoseconds()
    let isNew = state.withLock { $0.beginFetch(name, now: now) }
    if isNew {
      let copy = PromptCopy(prompt)
      let use = core.use(again: namespace)
      let others = zip(sections, beside).map { (use: core.use(again: $0), remote: $1) }
      let refusal = fetches.submit { [self, unowned core] in
        do throws(StoreError) {
          try copy.withPrompt { (prompt) throws(StoreError) in
            var fetch = RemoteFetch(self, core, use.core, remote, prompt, range)
            fetch.sections = others.map { ($0.use.core, $0.remote) }
            fetch.name = name
            fetch.run()
          }
        } catch {
          // A restore meets the same error and reports it.
          state.withLock { $0.statistics.noteMiss(.noRoom) }
        }
        state.withLock { $0.endFetch(name, now: monotonicNanoseconds()) }
      }
      guard refusal == nil else {
        state.withLock { state in
          state.endFetch(name, now: now)
          state.statistics.noteMiss(.queue)
        }
        return
      }
    }
    let blockByteCount = namespace.identity.payloadByteCountMax
    state.withLock { state in
      // What ended since the match began may have brought more than it saw.
      guard let fetch = state.fetches[name], fetch.endedAt.map({ $0 >= began }) ?? true else {
        return
      }
      result.isBeingFetched = true
      result.remoteBlockCount = fetch.blockCount
      let bytesPerSecond = state.bandwidth.bytesPerSecond
      guard fetch.blockCount > 0, bytesPerSecond > 0 else { return }
      let seconds = Double(fetch.blockCount * blockByteCount) / bytesPerSecond
      result.fetchNanosecondsEstimated = state.roundNanoseconds &+ UInt64(min(seconds * 1e9, 1e18))
    }
  }

  static func fetchName(
    _ namespace: NamespaceCore,
    _ sections: [NamespaceCore],
    _ prompt: Prompt,
    blockCount: Int
  ) -> RemoteState.FetchName {
    let wordCount = blockCount * namespace.wordsPerBlock
    var digest = BlockKey(high: 0, low: 0)
    if let base = unsafe prompt.words {
      digest = unsafe xxh3Key(
        UnsafeRawBufferPointer(UnsafeBufferPointer(start: base, count: wordCount))
      )
    }
    let extraCount = unsafe min(blockCount, prompt.extra.count)
    for block in 0..<extraCount {
      let extra = unsafe xxh3Key(prompt.extraBytes(ofBlock: block))
      digest.high = (digest.high ^ extra.high) &* 0x9E37_79B1_85EB_CA87
      digest.low = (digest.low ^ extra.low) &* 0xC2B2_AE3D_27D4_EB4F
    }
    for section in sections {
      digest.low = (digest.low ^ UInt64(section.id.rawValue)) &* 0x9E37_79B1_85EB_CA87
    }
    return RemoteState.FetchName(
      namespace: namespace.id,
      blockCount: blockCount,
      digest: digest
    )
  }

  /// The writer has published a block.
  func noteStored(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ position: BlockPosition,
    blockCount: Int
  ) {
    guard configuration.writes == .all else { return }
    send(core, namespace, position, blockCount: blockCount, onlyLast: true)
  }

  /// A request has used a path that was stored before.
  func noteReuse(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ position: BlockPosition,
    blockCount: Int
  ) {
    guard configuration.writes != .off else { return }
    send(core, namespace, position, blockCount: blockCount, onlyLast: false)
  }

  private func send(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ position: BlockPosition,
    blockCount: Int,
    onlyLast: Bool
  ) {
    guard mayAsk(), state.withLock({ monotonicNanoseconds() >= $0.pausedUntil }),
      let remote = self.namespace(namespace, keyBitCount: core.configuration.keyBitCount)
    else { return }
    let chunkCount = blockCount / remote.blocksPerChunk
    guard chunkCount > 0, !onlyLast || blockCount % remote.blocksPerChunk == 0 else { return }
    let isNew = onlyLast || state.withLock { $0.noteUse(namespace.id, position.run, chunkCount) }
    guard isNew else { return }
    let refusal = sends.submit { [self, unowned core] in
      guard !cancellation.isCancelled else { return }
      var send = RemoteSend(self, core, namespace, remote)
      let chunks = remote.chunks(after: 0, through: chunkCount * remote.blocksPerChunk)
      send.run(to: position, blockCount: blockCount, chunks: chunks.suffix(onlyLast ? 1 : .max))
    }
    if refusal != nil { state.withLock { $0.statistics.noteDrop(.queue) } }
  }

  // MARK: Sections

  /// Somebody has the digest of a section made, to store one or to look for it: what it stands behind is known from then on for a while.
  func notePrefix(
    of section: NamespaceCore,
    digest: [UInt8],
    _ owner: NamespaceCore,
    _ prompt: Prompt,
    blockCount: Int
  ) {
    guard configuration.writes != .off else { return }
    var cursor = ChainCursor(owner.chain, prompt)
    for _ in 0..<blockCount { guard cursor.next() != nil else { return } }
    let prefix = RemoteState.SectionPrefix(
      owner: owner,
      lastKey: cursor.parentKey,
      blockCount: blockCount
    )
    let name = Self.prefixName(section, wordsOfDigest(digest))
    state.withLock { $0.notePrefix(prefix, of: name) }
  }

  func prefix(
    behindWhich section: NamespaceCore,
    words: [UInt32]
  ) -> RemoteState.SectionPrefix? {
    guard section.identity.sideSection != nil else { return nil }
    let name = Self.prefixName(section, words)
    return state.withLock { $0.prefix(of: name) }
  }

  private static func prefixName(_ section: NamespaceCore, _ words: [UInt32]) -> BlockKey {
    var name = unsafe words.withUnsafeBytes { xxh3Key($0) }
    name.high ^= UInt64(section.id.rawValue)
    return name
  }
}
