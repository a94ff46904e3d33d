internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVPolicy

/// What is offloaded and not admitted is not taken at all: no copy, no write.
extension OffloadCall {
  /// Past the last block of the range that may come in; those that are stored may in any case.
  ///
  /// Decided for the whole of the range at once, so with a rule all of it is looked up first.
  mutating func admittedEnd() throws(StoreError) -> Int {
    // Without its parent nothing is taken anyhow.
    guard !isAdmitted, !core.admitsAll, try findStored(range.blocks) else {
      return range.blocks.upperBound
    }
    return admittedEndOfRest()
  }

  /// The same of what is not stored, once the cursor stands before that.
  ///
  /// Of a block whose regions come in several calls the one with its first region decides, and notes it.
  mutating func admittedEndOfRest() -> Int {
    let storedCount = cursor.block
    guard !core.admitsAll, storedCount < range.blocks.upperBound else {
      return range.blocks.upperBound
    }
    var ahead = cursor
    var keys: [UInt64] = []
    while ahead.block < range.blocks.upperBound, let link = ahead.next() {
      keys.append(link.key.high)
    }
    if !range.coversAllRegions {
      let begunCount = begunCount(keys)
      if begunCount > 0 || range.regions.lowerBound > 0 { return storedCount + begunCount }
    }
    let configuration = core.configuration
    let byteCount =
      namespace.isInline
      ? namespace.identity.payloadByteCountMax : namespace.layout.slotByteCount
    let isFull = core.state.withLock {
      $0.fullness.isFull(slotByteCount: namespace.layout.slotByteCount)
    }
    let offer = Admission.Offer(
      blockByteCount: byteCount,
      storedBlockCount: storedCount,
      storedKeys: sampledKeys,
      isFull: isFull,
      tierBlockCount: (configuration.capacityBytes - configuration.effectiveCatalogBytes
        + configuration.archiveBytes) / byteCount
    )
    let admittedCount = core.admission.withLock { [keys] admission in
      admission.admit(keys, offer, now: configuration.clock.bootTimeNanoseconds())
    }
    let declinedCount = keys.count - admittedCount
    core.state.withLock { $0.meters.noteDeclined(declinedCount) }
    return storedCount + admittedCount
  }

  /// Leading blocks of which some regions have come.
  private func begunCount(_ keys: [UInt64]) -> Int {
    let begun = core.state.withLock { $0.partials.keys(in: namespace.id) }
    return keys.firstIndex { !begun.contains($0) } ?? keys.count
  }
}

extension StoreCore {
  /// Whether everything is admitted.
  fileprivate var admitsAll: Bool {
    configuration.admission == .always && configuration.writeBytesPerDay == 0
  }

  /// Whether so many bytes may be written to disk that nobody waits for.
  func maySpend(_ byteCount: Int) -> Bool {
    guard configuration.writeBytesPerDay > 0 else { return true }
    return admission.withLock {
      $0.maySpend(byteCount, now: configuration.clock.bootTimeNanoseconds())
    }
  }
}

extension PrefixTree {
  /// 64 bits of the keys of a prefix' blocks, as far as `Admission.isSampled` picks them.
  func sampledKeys(of prefix: StoredPrefix) -> [UInt64] {
    var keys: [UInt64] = []
    forEachBlock(of: prefix) { _, entry in
      if Admission.isSampled(entry.blockKey.high) { keys.append(entry.blockKey.high) }
      return true
    }
    return keys
  }
}
