import KVCore
import KVFile
import KVSimulation

/// What the machine can do without the store.
struct LimitsWorkload: Workload {
  let name = "limits"
  let pageCacheState = "bypassed by O_DIRECT; warm for the page-cache read"
  /// Where to save the bandwidths for `kvstore replay --profile`.
  var profileFile: String?

  /// Larger than the processor's caches, so that memory is measured.
  private static let copyByteCount = 64 << 20
  private static let checksumByteCount = 2 << 20

  func run(_ bench: Bench) throws {
    let copyRate = try measureMemory(bench)
    let (readRate, writeRate) = try measureDisk(bench)
    guard let profileFile else { return }
    let profile = MachineProfile(
      copyBytesPerSecond: copyRate * 1e9,
      diskReadBytesPerSecond: readRate * 1e9,
      diskWriteBytesPerSecond: writeRate * 1e9
    )
    try writeFile(profileFile, jsonText(profile, isPretty: true))
  }

  /// Returns the rate of memcpy, GB/s.
  private func measureMemory(_ bench: Bench) throws -> Double {
    let source = try BlockMemory(regionByteCounts: [Self.copyByteCount], blockCount: 1)
    let target = try BlockMemory(regionByteCounts: [Self.copyByteCount], blockCount: 1)
    source.fill(seed: bench.options.seed)
    var copies = Series()
    var checksums = Series()
    let hashed = try AlignedBuffer(byteCount: Self.checksumByteCount, isZeroed: true)
    var sum: UInt64 = 0
    bench.forEachRun("memory") { _ in
      let copyTime = nanoseconds { source.copy(0..<1, to: target) }
      copies.values.append(gigabytesPerSecond(Self.copyByteCount, copyTime))
      copies.latencies.append(copyTime)
      let repeats = 32
      let hashTime = nanoseconds {
        for _ in 0..<repeats { unsafe sum &+= xxh3Checksum(hashed.readOnly) }
      }
      checksums.values.append(gigabytesPerSecond(Self.checksumByteCount * repeats, hashTime))
      checksums.latencies.append(hashTime / UInt64(repeats))
    }
    // The sum is used, so that the work cannot be left out.
    guard sum != 1 else { throw CommandFailure("the checksum of zeros is wrong") }
    bench.add(
      "memcpy, 64 MiB",
      copies,
      unit: "GB/s"
    )
    bench.add(
      "XXH3-64, 2 MiB",
      checksums,
      unit: "GB/s",
      limit: Limit(name: "memcpy", value: copies.median)
    )
    return copies.median
  }

  /// Returns the best rates of raw reads and of raw writes to fresh files, GB/s.
  private func measureDisk(_ bench: Bench) throws -> (read: Double, write: Double) {
    var limits = try DiskLimits(bench)
    try bench.forEachRun("raw write") { _ in try limits.measureWrites() }
    try limits.prepareReads()
    try bench.forEachRun("raw read") { _ in try limits.measureReads() }
    let note = try limits.isDirect() ? "" : " (no O_DIRECT here: page cache)"
    for direction in [DiskLimits.Direction.freshWrite, .overwrite, .read] {
      let best = limits.best(direction)
      for (threads, series) in limits.all(direction) {
        var params = bench.parameters("\(direction.rawValue)\(note), \(counted(threads, "thread"))")
        params["threads"] = .integer(threads)
        bench.report.add(
          params,
          series,
          unit: "GB/s",
          limit: best.map { Limit(name: "best of these", value: $0.value) }
        )
      }
    }
    var cached = Series()
    // The first pass fills the cache.
    _ = try limits.pageCacheRead()
    try bench.forEachRun("page cache") { _ in cached.values.append(try limits.pageCacheRead()) }
    bench.add(
      "page-cache read",
      cached,
      unit: "GB/s"
    )
    try limits.remove()
    return (limits.best(.read)?.value ?? 0, limits.best(.freshWrite)?.value ?? 0)
  }
}
