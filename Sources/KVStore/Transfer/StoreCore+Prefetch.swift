internal import KVCodec
internal import KVCore
internal import KVIndex

extension StoreCore {
  /// Starts bringing the prompt's stored prefix into the arena; returns how many blocks that are not there yet it will try to.
  ///
  /// At most half of the arena, the leading blocks first: what comes before is worth more.
  func startPrefetch(
    _ namespace: NamespaceCore,
    _ prompt: Prompt
  ) throws(StoreError) -> (stored: Int, started: Int) {
    if health.isPoisoned { return (0, 0) }
    let bound = max(1, effectiveHostBytes / 2 / namespace.layout.slotByteCount)
    let (storedCount, missingCount, end) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: namespace.blockCount(of: prompt),
      touch: true
    ) { state, prefix in
      var missingCount = 0
      // Where the last block lies that the bound lets in.
      var end = 0
      state.tree.forEachBlock(of: prefix) { block, entry in
        if entry.hostSlot < 0, missingCount < bound {
          missingCount += 1
          end = block + 1
        }
        return missingCount < bound
      }
      return (prefix.blockCount, missingCount, end)
    }
    guard missingCount > 0 else { return (storedCount, 0) }
    let copy = PromptCopy(prompt)
    let limit = TransferLimit(deadline: nil, cancellation: prefetchCancellation)
    let refusal = prefetchQueue.submit { [self] in
      do throws(StoreError) {
        try copy.withPrompt { (prompt) throws(StoreError) in
          let range = namespace.range(ofBlocks: 0..<end)
          var call = RestoreCall(self, namespace, prompt, range, to: .cache, limit)
          try call.prefetch()
        }
      } catch {
        // Best effort: a restore meets the same error and reports it.
      }
    }
    if let refusal { throw StoreError(refusal) }
    return (storedCount, missingCount)
  }
}
