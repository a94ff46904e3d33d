public import KVCore
package import KVFile

/// How a store is opened.
///
/// The defaults are safe ones.
public struct StoreConfiguration: Sendable {
  /// The store's folder; created (0700) when absent.
  public var path: String
  /// Match and restore only; the folder is not changed.
  public var readOnly: Bool = false
  /// Never use O_DIRECT.
  public var bufferedIO: Bool = false
  /// Upper bound of the bytes on disk, everything included; at least 64 MiB.
  ///
  /// A store that is larger is brought back into it in the background: blocks leave in the order of eviction. Where several
  /// processes have it open, the largest of their capacities counts.
  public var capacityBytes: Int = 10 << 30
  /// The part of `capacityBytes` that the catalog may use; 0 is a sixteenth, at least 32 MiB and at most 1 TiB.
  public var catalogBytes: Int = 0
  /// Which new blocks are taken; the others are `declined`.
  public var admission = AdmissionPolicy.always
  /// The most that is written to disk in a day, in the mean, and up to a 24th of it at once; 0 = no bound.
  ///
  /// New blocks beyond it are declined, and blocks in the archive stay there.
  public var writeBytesPerDay: Int = 0
  /// Which blocks leave when there is no room.
  public var evictionPolicy = EvictionPolicy.density
  /// Bytes that the archive may take, beyond `capacityBytes`: blocks that leave the disk lie there compressed.
  ///
  /// 0 = nothing is moved there.
  public var archiveBytes: Int = 0
  /// A folder for the archive, for example on a larger and slower disk; empty = in the store's folder.
  ///
  /// Another one for a store that has an archive is refused: `kvstore set archive-path` moves it.
  public var archivePath: String = ""
  /// Bytes of the arena in RAM.
  public var hostBytes: Int = 256 << 20
  /// Payloads of at most this many bytes live in the catalog.
  public var inlinePayloadBytesMax: Int = 16 << 10
  /// A tier outside this machine; none by default.
  public var remote = RemoteConfiguration()
  /// How long an offload may wait for arena room, in nanoseconds.
  public var offloadTimeoutNanoseconds: UInt64 = 10_000_000_000
  /// How long offloaded blocks may wait for company before they are synced, in nanoseconds.
  public var commitIntervalNanoseconds: UInt64 = 20_000_000
  /// How long other calls may wait for other processes, in nanoseconds.
  public var waitTimeoutNanoseconds: UInt64 = 30_000_000_000
  /// RAM that the index may use before its coldest nodes are dropped.
  public var indexBytesMax: Int = 1 << 30
  /// Whether a store that is larger is brought back into its bounds; tools that only look after one leave it as it is.
  package var holdsToCapacity = true
  /// The smallest archive; tests use less.
  package var archiveBytesMin = 64 << 20
  /// Bytes of an archive file, if there is room; nil = by the archive's size.
  package var archiveFileBytes: Int?
  /// How long the writer waits for the archive before it goes on without.
  package var archiveLimitNanoseconds: UInt64 = 2_000_000_000
  /// The clock; tests inject their own.
  public var clock: any StoreClock = SystemClock()
  /// Bits of each block key that are kept; tests narrow it to force collisions.
  package var keyBitCount: Int = 128
  /// Whether commits of the catalog wait for the disk; replays of long traces do without.
  package var catalogIsSynced = true
  /// The file system; tests inject faults.
  package var storage: any Storage = LinuxStorage()

  /// The defaults for a store at `path`.
  public init(path: String) { self.path = path }

  /// LMDB maps its whole bound at once; an address space has 2^47 bytes.
  package static let catalogBytesDefaultMax = 1 << 40
  package static let capacityBytesMin = 64 << 20
  package static let catalogBytesMin = 32 << 20

  package var effectiveCatalogBytes: Int {
    let wanted =
      catalogBytes == 0
      ? min(max(capacityBytes / 16, Self.catalogBytesMin), Self.catalogBytesDefaultMax)
      : catalogBytes
    return wanted & ~4095
  }

  package func validate() throws(StoreError) {
    guard !path.isEmpty, !path.utf8.contains(0) else { throw .invalidArgument(.path) }
    guard (Self.capacityBytesMin...1 << 60).contains(capacityBytes) else {
      throw .invalidArgument(.capacity)
    }
    guard effectiveCatalogBytes >= 1 << 20, effectiveCatalogBytes <= capacityBytes / 16 * 15 else {
      throw .invalidArgument(.catalogSize)
    }
    guard archiveBytes == 0 || (archiveBytesMin...1 << 60).contains(archiveBytes) else {
      throw .invalidArgument(.archiveSize)
    }
    try remote.validate()
    guard !archivePath.utf8.contains(0) else { throw .invalidArgument(.archivePath) }
    guard (0...1 << 46).contains(hostBytes), (0...1 << 30).contains(inlinePayloadBytesMax) else {
      throw .invalidArgument(.capacity)
    }
  }
}
