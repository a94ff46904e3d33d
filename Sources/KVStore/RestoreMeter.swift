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

  /// Nanoseconds to restore so many bytes of each tier; nil as long as a tier that is needed was never measured.
  func estimate(hostByteCount: Int, diskByteCount: Int) -> UInt64? {
    var seconds = 0.0
    for (byteCount, average) in [(hostByteCount, host), (diskByteCount, disk)] where byteCount > 0 {
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
  var hostNanoseconds: UInt64 = 0
  var diskNanoseconds: UInt64 = 0

  /// Deals a window's time out: what was not copying from RAM was the disk's, if it had any part in it.
  mutating func divide(_ nanoseconds: UInt64) {
    if diskByteCount == 0 {
      hostNanoseconds = nanoseconds
    } else {
      diskNanoseconds = nanoseconds - min(hostNanoseconds, nanoseconds)
    }
  }

  /// Adds a window that went through as a whole.
  mutating func add(_ window: RestoreMeter) {
    hostByteCount += window.hostByteCount
    diskByteCount += window.diskByteCount
    hostNanoseconds += window.hostNanoseconds
    diskNanoseconds += window.diskNanoseconds
  }

  /// Counts what was restored, and holds it against what the averages said of it before.
  func enter(_ bandwidth: inout RestoreBandwidth, _ statistics: inout StoreStatistics) {
    statistics.restoredBytesHost += UInt64(hostByteCount)
    statistics.restoredBytesDisk += UInt64(diskByteCount)
    if let estimate = bandwidth.estimate(
      hostByteCount: hostByteCount,
      diskByteCount: diskByteCount
    ) {
      statistics.restoreNanosecondsEstimated += estimate
      statistics.restoreNanosecondsMeasured += hostNanoseconds + diskNanoseconds
    }
    bandwidth.host.add(byteCount: hostByteCount, nanoseconds: hostNanoseconds)
    bandwidth.disk.add(byteCount: diskByteCount, nanoseconds: diskNanoseconds)
  }
}
