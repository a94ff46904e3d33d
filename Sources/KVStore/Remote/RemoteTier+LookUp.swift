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
    guard core.writer != nil, mayAsk(),
      let remote = self.namespace(namespace, keyBitCount: core.configuration.keyBitCount)
    else { return }
    let storedBlockCount = result.blockCount
    let blockCount =
      namespace.blockCount(of: prompt) / remote.blocksPerChunk * remote.blocksPerChunk
    guard blockCount > storedBlockCount else { return }
    let name = Self.fetchName(namespace, prompt, blockCount: blockCount)
    let now = monotonicNanoseconds()
    let isNew = state.withLock { $0.beginFetch(name, now: now) }
    if isNew {
      let copy = PromptCopy(prompt)
      let use = core.use(again: namespace)
      let refusal = fetches.submit { [self, unowned core] in
        do throws(StoreError) {
          try copy.withPrompt { (prompt) throws(StoreError) in
            var fetch = RemoteFetch(self, core, use.core, remote, prompt, name, storedBlockCount)
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
      send.run(
        to: position,
        blockCount: blockCount,
        chunks: (onlyLast ? chunkCount - 1 : 0)..<chunkCount
      )
    }
    if refusal != nil { state.withLock { $0.statistics.noteDrop(.queue) } }
  }
}
