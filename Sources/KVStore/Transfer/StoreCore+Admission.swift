internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVPolicy

/// What is offloaded and not admitted is not taken at all: no copy, no write.
extension StoreCore {
  /// Whether everything is admitted.
  private var admitsAll: Bool {
    configuration.admission == .always && configuration.writeBytesPerDay == 0
  }

  /// Past the last block of the range that may come in; those that are stored may in any case.
  ///
  /// Decided for the whole of the range at once. Of a block whose regions come in several calls the one with its first region decides, and
  /// notes it.
  func admittedEnd(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range
  ) throws(StoreError) -> Int {
    guard !admitsAll else { return range.blocks.upperBound }
    let samples = configuration.admission == .adaptive
    let (storedCount, tailKey, storedKeys) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: range.blocks.upperBound,
      touch: false
    ) { state, prefix in
      (
        prefix.blockCount, state.index.blockKey(at: prefix.location) ?? namespace.chain.rootKey,
        samples ? state.sampledKeys(of: prefix) : []
      )
    }
    // Without its parent nothing is taken anyhow.
    guard storedCount >= range.blocks.lowerBound, storedCount < range.blocks.upperBound else {
      return range.blocks.upperBound
    }
    var keys: [UInt64] = []
    var cursor = ChainCursor(namespace.chain, prompt, at: storedCount, after: tailKey)
    while cursor.block < range.blocks.upperBound, let link = cursor.next() {
      keys.append(link.key.high)
    }
    if !range.coversAllRegions {
      let begunCount = begunCount(namespace, keys)
      if begunCount > 0 || range.regions.lowerBound > 0 { return storedCount + begunCount }
    }
    let byteCount =
      namespace.isInline
      ? namespace.identity.payloadByteCountMax : namespace.layout.slotByteCount
    let isFull = state.withLock { $0.fullSizes.contains(namespace.layout.slotByteCount) }
    let admittedCount = admission.withLock { [keys] admission in
      admission.admit(
        keys,
        Admission.Offer(
          blockByteCount: byteCount,
          storedBlockCount: storedCount,
          storedKeys: storedKeys,
          isFull: isFull,
          tierBlockCount: (configuration.capacityBytes - configuration.effectiveCatalogBytes
            + configuration.archiveBytes) / byteCount
        ),
        now: configuration.clock.bootTimeNanoseconds()
      )
    }
    let declinedCount = keys.count - admittedCount
    state.withLock { $0.statistics.blocksDeclined += UInt64(declinedCount) }
    return storedCount + admittedCount
  }

  /// Leading blocks of which some regions have come.
  private func begunCount(_ namespace: NamespaceCore, _ keys: [UInt64]) -> Int {
    state.withLock { state in
      let begun = Set(
        state.partials.keys.filter { $0.namespace == namespace.id }.map(\.blockKey.high)
      )
      return keys.firstIndex { !begun.contains($0) } ?? keys.count
    }
  }

  /// Whether so many bytes may be written to disk that nobody waits for.
  func maySpend(_ byteCount: Int) -> Bool {
    guard configuration.writeBytesPerDay > 0 else { return true }
    return admission.withLock {
      $0.maySpend(byteCount, now: configuration.clock.bootTimeNanoseconds())
    }
  }
}

extension StoreState {
  /// 64 bits of the keys of a prefix' blocks, as far as `Admission.isSampled` picks them.
  fileprivate func sampledKeys(of prefix: StoredPrefix) -> [UInt64] {
    var keys: [UInt64] = []
    for segment in prefix.segments {
      for offset in 0..<Int(segment.blockCount) {
        guard let entry = index.entry(at: segment.location(at: offset)) else { return keys }
        if Admission.isSampled(entry.blockKey.high) { keys.append(entry.blockKey.high) }
      }
    }
    return keys
  }
}
