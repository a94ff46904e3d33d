internal import KVCatalog
internal import KVCore
internal import KVRemote

/// What is known of blocks that are about to leave disk and archive by eviction, so that they are sent before.
///
/// An eviction waits for nothing: each one says how much left, and while the next one is due, what it is likely to take is sent. What was not
/// sent by then is gone, and counted.
struct RemoteDemotions {
  private struct RunKey: Hashable {
    let namespace: NamespaceID
    let run: RunID
  }

  /// Of runs whose chunks are there: how many leading blocks that covers.
  private var prepared: [RunKey: UInt32] = [:]
  private static let preparedCountMax = 65_536
  private var evictedBlockCount = 0
  private var namespaces: Set<NamespaceID> = []
  private var isScanning = false

  /// Blocks that one scan looks at.
  private static let scanCounts = 256...2048

  /// Takes in what was evicted; returns how many of the blocks are there, and how many are not.
  mutating func noteEvicted(_ ranges: [RemovedSummary.Range]) -> (sent: Int, unsent: Int) {
    var sent = 0
    var all = 0
    for range in ranges {
      let key = RunKey(namespace: range.namespace, run: range.run)
      let covered = prepared[key] ?? 0
      all += Int(range.blockCount)
      if covered > range.firstPosition {
        sent += Int(min(covered - range.firstPosition, range.blockCount))
      }
      if range.firstPosition == 0 { prepared[key] = nil }
      namespaces.insert(range.namespace)
    }
    evictedBlockCount += all
    return (sent, all - sent)
  }

  /// Whether it is time to look at what leaves next, and at how many blocks of which namespaces.
  mutating func beginScan() -> (blockCount: Int, namespaces: Set<NamespaceID>)? {
    guard evictedBlockCount > 0, !isScanning else { return nil }
    isScanning = true
    defer { (evictedBlockCount, namespaces) = (0, []) }
    let wanted = 2 * evictedBlockCount
    return (min(max(wanted, Self.scanCounts.lowerBound), Self.scanCounts.upperBound), namespaces)
  }

  mutating func endScan() { isScanning = false }

  /// The leading blocks of a run are there, as far as whole chunks go.
  mutating func notePrepared(_ namespace: NamespaceID, _ run: RunID, _ blockCount: UInt32) {
    // Those that were sent long ago are likely gone from here.
    if prepared.count >= Self.preparedCountMax { prepared = [:] }
    let key = RunKey(namespace: namespace, run: run)
    prepared[key] = max(prepared[key] ?? 0, blockCount)
  }
}

extension RemoteTier {
  private var demotes: Bool { configuration.demotes && configuration.writes != .off }

  /// An eviction is committed; called by the writer's thread.
  func noteEvicted(_ ranges: [RemovedSummary.Range]) {
    guard demotes else { return }
    state.withLock { state in
      let (sent, unsent) = state.demotions.noteEvicted(ranges)
      state.statistics.blocksDemoted += UInt64(sent)
      state.statistics.blocksLost += UInt64(unsent)
    }
  }

  /// Lets what the next evictions are likely to take be sent; called by the writer's thread now and then, and waits for nothing.
  func prepareDemotions(_ core: StoreCore) {
    guard demotes, mayAsk(), let scan = state.withLock({ $0.demotions.beginScan() }) else { return }
    let refusal = sends.submit { [self, unowned core] in
      defer { state.withLock { $0.demotions.endScan() } }
      guard !cancellation.isCancelled else { return }
      let namespaces = core.state.withLock { state in
        scan.namespaces.compactMap { state.namespaces.namespace($0) }
      }
      do throws(StoreError) {
        for (namespace, end) in try coldest(core, namespaces, scan.blockCount) {
          sendLeaving(core, namespace, end)
        }
      } catch {
        state.withLock { $0.statistics.noteDrop(.gone) }
      }
    }
    if refusal != nil { state.withLock { $0.demotions.endScan() } }
  }

  /// The deepest block of each run that has some of the coldest blocks of these namespaces' slot sizes.
  ///
  /// By recency: where the policy has learned of reuse, evictions take some others.
  private func coldest(
    _ core: StoreCore,
    _ namespaces: [NamespaceCore],
    _ blockCount: Int
  ) throws(StoreError) -> [(NamespaceCore, BlockPosition)] {
    let known = Dictionary(uniqueKeysWithValues: namespaces.map { ($0.id, $0) })
    let pools = Set(namespaces.filter { !$0.isInline }.map(\.pool))
    return try core.catalogRead { (transaction) throws(CatalogError) in
      let hasArchive = try transaction.slotFiles().contains { $0.tier == .archive }
      var ends: [(NamespaceCore, BlockPosition)] = []
      var seen: Set<RunID> = []
      for pool in pools {
        var resume: StampOrder?
        let blocks = try transaction.coldest(
          pool: pool,
          in: hasArchive ? .archive : .disk,
          blockCount: blockCount,
          resume: &resume,
          isProtected: { _, _, _ in false }
        )
        // A run's last block comes first.
        for block in blocks where seen.insert(block.position.run).inserted {
          if let namespace = known[block.namespace] { ends.append((namespace, block.position)) }
        }
      }
      return ends
    }
  }

  private func sendLeaving(_ core: StoreCore, _ namespace: NamespaceCore, _ end: BlockPosition) {
    guard let remote = self.namespace(namespace, keyBitCount: core.configuration.keyBitCount) else {
      return
    }
    let refusal = sends.submit { [self, unowned core] in
      guard !cancellation.isCancelled else { return }
      var path = StoredPath(namespace)
      guard (try? path.read(core, to: end)) == true else { return }
      let blockCount = path.blocks.count
      let whole = blockCount / remote.blocksPerChunk * remote.blocksPerChunk
      var send = RemoteSend(self, core, namespace, remote)
      let isThere = send.run(
        to: end,
        blockCount: blockCount,
        chunks: remote.chunks(after: 0, through: whole)
      )
      // The run's first block is so deep.
      let first = blockCount - 1 - Int(end.position)
      guard isThere, whole > first else { return }
      state.withLock {
        $0.demotions.notePrepared(namespace.id, end.run, UInt32(whole - first))
      }
    }
    if refusal != nil { state.withLock { $0.statistics.noteDrop(.queue) } }
  }
}
