/// How fast a tier gave blocks back: bytes and time, of which the older half fades away.
///
/// Kept in RAM only: what a disk did yesterday says little about today.
struct BandwidthAverage {
  private var byteCount = 0.0
  private var nanoseconds = 0.0

  /// Beyond so many bytes what was measured before counts half.
  private static let byteCountMax = 256.0 * 1024 * 1024

  mutating func add(byteCount: Int, nanoseconds: UInt64) {
    guard byteCount > 0, nanoseconds > 0 else { return }
    self.byteCount += Double(byteCount)
    self.nanoseconds += Double(nanoseconds)
    if self.byteCount > Self.byteCountMax {
      self.byteCount /= 2
      self.nanoseconds /= 2
    }
  }

  /// 0 before anything was measured.
  var bytesPerSecond: Double { nanoseconds > 0 ? byteCount / nanoseconds * 1e9 : 0 }
}

/// The measured speed of each tier, and what it promises.
struct RestoreBandwidth {
  var host = BandwidthAverage()
  var disk = BandwidthAverage()
  var archive = BandwidthAverage()
  /// How long the parts of restores took that came from each tier.
  var hostTimes = LatencyHistogram()
  var diskTimes = LatencyHistogram()
  var archiveTimes = LatencyHistogram()

  /// Nanoseconds to restore so many bytes of each tier; nil as long as a tier that is needed was never measured.
  func estimate(hostByteCount: Int, diskByteCount: Int, archiveByteCount: Int = 0) -> UInt64? {
    var seconds = 0.0
    let parts = [(hostByteCount, host), (diskByteCount, disk), (archiveByteCount, archive)]
    for (byteCount, average) in parts where byteCount > 0 {
      guard average.bytesPerSecond > 0 else { return nil }
      seconds += Double(byteCount) / average.bytesPerSecond
    }
    // A restore of anything takes time; 0 would read as "not known".
    return seconds > 0 ? max(1, UInt64(min(seconds * 1e9, 1e18))) : nil
  }
}

/// What one restore took, tier by tier.
struct RestoreMeter {
  var hostByteCount = 0
  var diskByteCount = 0
  var archiveByteCount = 0
  var archiveBlockCount = 0
  var hostNanoseconds: UInt64 = 0
  var diskNanoseconds: UInt64 = 0
  var archiveNanoseconds: UInt64 = 0

  /// Deals a window's time out: what was not copying from RAM was the disk's and the archive's, if they had any part in it.
  ///
  /// Where both had, the disk's part is what its bytes take by what is known of it, or its share of the bytes.
  mutating func divide(_ nanoseconds: UInt64, diskBytesPerSecond: () -> Double) {
    let rest = nanoseconds - min(hostNanoseconds, nanoseconds)
    switch (diskByteCount > 0, archiveByteCount > 0) {
    case (false, false): hostNanoseconds = nanoseconds
    case (true, false): diskNanoseconds = rest
    case (false, true): archiveNanoseconds = rest
    case (true, true):
      let known = diskBytesPerSecond()
      let part =
        known > 0
        ? Double(diskByteCount) / known * 1e9
        : Double(rest) * Double(diskByteCount) / Double(diskByteCount + archiveByteCount)
      diskNanoseconds = min(rest, UInt64(part))
      archiveNanoseconds = rest - diskNanoseconds
    }
  }

  /// Adds a window that went through as a whole.
  mutating func add(_ window: RestoreMeter) {
    hostByteCount += window.hostByteCount
    diskByteCount += window.diskByteCount
    hostNanoseconds += window.hostNanoseconds
    diskNanoseconds += window.diskNanoseconds
    archiveByteCount += window.archiveByteCount
    archiveBlockCount += window.archiveBlockCount
    archiveNanoseconds += window.archiveNanoseconds
  }

  /// Counts what was restored, and holds it against what the averages said of it before.
  func enter(_ bandwidth: inout RestoreBandwidth, _ statistics: inout StoreStatistics) {
    statistics.restoredBytesHost += UInt64(hostByteCount)
    statistics.restoredBytesDisk += UInt64(diskByteCount)
    statistics.blocksRestoredArchive += UInt64(archiveBlockCount)
    statistics.restoredBytesArchive += UInt64(archiveByteCount)
    if let estimate = bandwidth.estimate(
      hostByteCount: hostByteCount,
      diskByteCount: diskByteCount,
      archiveByteCount: archiveByteCount
    ) {
      statistics.restoreNanosecondsEstimated += estimate
      statistics.restoreNanosecondsMeasured +=
        hostNanoseconds + diskNanoseconds + archiveNanoseconds
    }
    if hostByteCount > 0 { bandwidth.hostTimes.add(hostNanoseconds) }
    if diskByteCount > 0 { bandwidth.diskTimes.add(diskNanoseconds) }
    if archiveByteCount > 0 { bandwidth.archiveTimes.add(archiveNanoseconds) }
    bandwidth.host.add(byteCount: hostByteCount, nanoseconds: hostNanoseconds)
    bandwidth.disk.add(byteCount: diskByteCount, nanoseconds: diskNanoseconds)
    bandwidth.archive.add(byteCount: archiveByteCount, nanoseconds: archiveNanoseconds)
  }
}
