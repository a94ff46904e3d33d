internal import KVCore
internal import KVPolicy

/// The store's tiers under an engine: each is an index and a pool of its own, and holds what the faster ones hold.
///
/// The archive takes what the disk tier evicts, so with one eviction order it is a cache of both sizes together. The remote tier takes
/// what requests have, all of it or what came before; a look-up there costs two round trips, one for the questions and one until the
/// first chunk comes.
final class StoreTiers {
  /// How far each tier reaches for one request, in blocks from the head, and what that moves.
  struct Found {
    /// Blocks of host, disk, archive, the remote tier; 0 where a faster tier has them.
    var hostBlockCount = 0
    var diskBlockCount = 0
    var archiveBlockCount = 0
    var remoteBlockCount = 0
    /// The end of the longest hit, device included.
    var endBlock = 0
    var restoredByteCount = 0

    mutating func add(_ other: Found) {
      hostBlockCount += other.hostBlockCount
      diskBlockCount += other.diskBlockCount
      archiveBlockCount += other.archiveBlockCount
      remoteBlockCount += other.remoteBlockCount
    }

    /// Of all tiers below the device.
    var blockCount: Int { hostBlockCount + diskBlockCount + archiveBlockCount + remoteBlockCount }
  }

  /// When disk, link and network are done with what they were given.
  struct Queues {
    var diskFreeAt: Int64 = 0
    var linkFreeAt: Int64 = 0
    var networkFreeAt: Int64 = 0
  }

  /// Where a restore leaves the queues.
  struct Transfer {
    var queues: Queues
    var endsAt: Int64
  }

  private let profile: StoreProfile
  private let blockByteCount: Int
  private let host: PathCache?
  private let disk: PathCache?
  private let archive: PathCache?
  private let remote: PathCache?
  private var tally = TierTally()

  init(_ profile: StoreProfile, blockByteCount: Int) {
    self.profile = profile
    self.blockByteCount = blockByteCount
    let ttl = profile.ttlMilliseconds
    let hostCount = profile.host?.blockCount(blockByteCount: blockByteCount) ?? 0
    let diskCount = profile.disk?.blockCount(blockByteCount: blockByteCount) ?? 0
    let archiveCount = profile.archive?.blockCount(blockByteCount: blockByteCount) ?? 0
    host = hostCount > 0 ? PathCache(capacity: hostCount, ttlMilliseconds: ttl) : nil
    disk = diskCount > 0 ? PathCache(capacity: diskCount, ttlMilliseconds: ttl) : nil
    archive =
      archiveCount > 0
      ? PathCache(capacity: diskCount + archiveCount, ttlMilliseconds: ttl) : nil
    let remoteCount = (profile.remote?.byteCount ?? 0) / blockByteCount
    remote =
      remoteCount > 0
      ? PathCache(
        capacity: remoteCount,
        ttlMilliseconds: ttl,
        admission: Admission(profile.remote?.sendsReusedOnly == true ? .secondTouch : .always)
      ) : nil
  }

  /// Looks a request up in all tiers and touches it there.
  func look(up request: TraceRequest, onDevice deviceBlockCount: Int) -> Found {
    var found = Found(endBlock: deviceBlockCount)
    if let host { found.hostBlockCount = Self.extend(&found.endBlock, to: host.handle(request)) }
    if let disk { found.diskBlockCount = Self.extend(&found.endBlock, to: disk.handle(request)) }
    if let archive {
      found.archiveBlockCount = Self.extend(&found.endBlock, to: archive.handle(request))
    }
    if let remote {
      found.remoteBlockCount = Self.extend(&found.endBlock, to: remote.handle(request))
    }
    found.restoredByteCount = found.blockCount * blockByteCount
    tally.hits.add(found)
    return found
  }

  /// What was found is restored, not computed.
  func read(_ found: Found) { tally.reads.add(found) }

  private static func extend(_ end: inout Int, to hitBlockCount: Int) -> Int {
    let more = max(0, hitBlockCount - end)
    end += more
    return more
  }

  /// When a restore that starts now would end.
  ///
  /// Disk and archive share one device; all crosses the link, and what is remote the network before.
  func transfer(
    _ found: Found,
    now: Int64,
    _ queues: Queues,
    engine: EngineProfile
  ) -> Transfer {
    var transfer = Transfer(queues: queues, endsAt: now)
    var diskEnd = now
    for (tier, count) in [
      (profile.disk, found.diskBlockCount), (profile.archive, found.archiveBlockCount),
    ] {
      guard let tier, count > 0 else { continue }
      let bytes = Double(count * blockByteCount) * tier.storedPart
      diskEnd =
        max(now, transfer.queues.diskFreeAt) + tier.latencyNanoseconds
        + duration(bytes, tier.readBytesPerSecond)
      transfer.queues.diskFreeAt = diskEnd
    }
    // Before the last block can cross the link it has come from disk and over the network.
    var arrival = diskEnd
    if let remote = profile.remote, found.remoteBlockCount > 0 {
      let bytes = Double(found.remoteBlockCount * blockByteCount)
      let networkEnd =
        max(now + 2 * remote.roundTripNanoseconds, transfer.queues.networkFreeAt)
        + duration(bytes, remote.bytesPerSecond)
      transfer.queues.networkFreeAt = networkEnd
      arrival = max(arrival, networkEnd)
    }
    let device = engine.device
    let start = max(now, transfer.queues.linkFreeAt) + device.linkLatencyNanoseconds
    // Host memory is read as the link asks for it: the slower of both counts.
    let linkRate = engine.linkBytesPerSecond
    let hostRate = min(profile.host?.readBytesPerSecond ?? linkRate, linkRate)
    let hostBytes = Double(found.hostBlockCount * blockByteCount)
    let otherBytes = Double((found.blockCount - found.hostBlockCount) * blockByteCount)
    let hostEnd = start + duration(hostBytes, hostRate)
    // Other blocks follow one another over the link; the last leaves when it is there.
    let otherEnd = max(
      hostEnd + duration(otherBytes, linkRate),
      arrival + duration(min(otherBytes, Double(blockByteCount)), linkRate)
    )
    transfer.queues.linkFreeAt = otherEnd
    transfer.endsAt = max(otherEnd, arrival)
    return transfer
  }

  private func duration(_ byteCount: Double, _ bytesPerSecond: Double) -> Int64 {
    Int64((byteCount / bytesPerSecond * 1e9).rounded())
  }

  func results() -> [TierResult] {
    func result(
      _ name: String,
      _ cache: PathCache,
      _ count: (Found) -> Int,
      _ part: Double
    ) -> TierResult {
      let counts = cache.counts
      let bytes = Double(blockByteCount) * part
      return TierResult(
        name: name,
        hitBlockCount: count(tally.hits),
        // What came and went at once, in a request larger than the tier, is never written.
        writtenByteCount: Int(Double(cache.writtenBlockCount) * bytes),
        readByteCount: Int(Double(count(tally.reads)) * bytes),
        evictedBlockCount: counts.evictedBlockCount,
        expiredBlockCount: counts.expiredBlockCount,
        residentByteCount: Int(Double(counts.residentBlockCount) * bytes),
        peakByteCount: Int(Double(counts.peakBlockCount) * bytes)
      )
    }
    var results: [TierResult] = []
    if let host { results.append(result("host", host, \.hostBlockCount, 1)) }
    if let disk { results.append(result("disk", disk, \.diskBlockCount, 1)) }
    if let archive {
      var archived = result(
        "archive",
        archive,
        \.archiveBlockCount,
        profile.archive?.storedPart ?? 1
      )
      // It is written with what the disk tier evicts, and holds what the disk tier does not.
      if let disk {
        let bytes = Double(blockByteCount) * (profile.archive?.storedPart ?? 1)
        archived.writtenByteCount = Int(Double(disk.counts.evictedBlockCount) * bytes)
        archived.residentByteCount =
          Int(
            Double(archive.counts.residentBlockCount - disk.counts.residentBlockCount) * bytes
          )
        archived.peakByteCount = Int(
          Double(max(0, archive.counts.peakBlockCount - disk.counts.peakBlockCount)) * bytes
        )
      }
      results.append(archived)
    }
    if let remote { results.append(result("remote", remote, \.remoteBlockCount, 1)) }
    return results
  }

  private struct TierTally {
    var hits = Found()
    /// Of the hits, those that were restored.
    var reads = Found()
  }
}
