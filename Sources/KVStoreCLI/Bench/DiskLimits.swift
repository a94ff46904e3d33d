/// Raw O_DIRECT throughput by number of threads, run for run beside what it is the limit of.
struct DiskLimits {
  enum Direction: String {
    case freshWrite = "raw write, fresh extents"
    case overwrite = "raw write, overwritten"
    case read = "raw read"
  }

  private let disk: RawDisk
  private let threadCounts: [Int]
  private var series: [Direction: [Int: Series]] = [:]

  init(_ bench: Bench) throws {
    disk = try RawDisk(
      path: "\(bench.folder)/raw",
      byteCount: bench.options.total.byteCount,
      storage: bench.storage
    )
    threadCounts = RawDisk.threadCounts(upTo: bench.options.threads)
  }

  /// One run of the writes, with every number of threads.
  mutating func measureWrites() throws {
    for threads in threadCounts {
      try disk.makeFresh()
      add(.freshWrite, threads, try disk.write(threads: threads))
      add(.overwrite, threads, try disk.write(threads: threads))
    }
  }

  /// Makes the file that the reads read.
  func prepareReads() throws {
    try disk.makeFresh()
    _ = try disk.write(threads: 1)
  }

  /// One run of the reads.
  mutating func measureReads() throws {
    for threads in threadCounts { add(.read, threads, try disk.read(threads: threads)) }
  }

  /// Nanoseconds of one read of the whole file through the page cache.
  func pageCacheRead() throws -> Double {
    gigabytesPerSecond(disk.byteCount, try disk.read(threads: 1, direct: false))
  }

  func remove() throws { try disk.remove() }

  /// Whether O_DIRECT is really in use; else the "raw" figures are those of the page cache.
  func isDirect() throws -> Bool { try disk.isDirect() }

  /// The best median over the numbers of threads.
  func best(_ direction: Direction) -> Limit? {
    let medians = (series[direction] ?? [:]).map { (threads: $0.key, value: $0.value.median) }
    return medians.max { $0.value < $1.value }.map {
      Limit(name: "\(direction.rawValue), \(counted($0.threads, "thread"))", value: $0.value)
    }
  }

  /// What was measured in one direction, by number of threads.
  func all(_ direction: Direction) -> [(threads: Int, series: Series)] {
    (series[direction] ?? [:]).sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
  }

  private mutating func add(_ direction: Direction, _ threads: Int, _ nanoseconds: UInt64) {
    let value = gigabytesPerSecond(disk.byteCount, nanoseconds)
    series[direction, default: [:]][threads, default: Series()].values.append(value)
  }
}
