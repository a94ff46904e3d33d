import CCallBench
import FoundationEssentials
import KVStore

/// What a call of the C interface costs beyond the bytes that it copies.
struct CAPIWorkload: Workload {
  let name = "capi"
  let pageCacheState = "not used: the block has a copy in RAM"
  /// The shared library, if it was named.
  let library: String?

  private static let callCount = 2_000
  private static let blockByteCounts = [4 << 10, 64 << 10, 1 << 20]

  func run(_ bench: Bench) throws {
    guard let library = library ?? Self.foundLibrary() else {
      writeError("kvstore: libkvstore.so.0 is not beside this command; name it with --library\n")
      return
    }
    for blockByteCount in Self.blockByteCounts {
      var arms = Arms()
      try bench.forEachRun("calls on \(byteText(blockByteCount))") { _ in
        let path = bench.freshStorePath()
        try arms.measure(library, path, blockByteCount, callCount: Self.callCount)
        if !bench.options.keep { try bench.remove(path) }
      }
      arms.report(bench, blockByteCount, isFirst: blockByteCount == Self.blockByteCounts[0])
    }
  }

  /// Of the installed tree that this command is in, or of the build folder.
  private static func foundLibrary() -> String? {
    let folder = programFolder()
    return [
      "\(folder)/../lib/libkvstore.so.0",
      "\(folder)/libKVStoreC.so",
    ].first { fileStatus($0) != nil }
  }

  /// One series for each kind of call.
  private struct Arms {
    var version = Series()
    var peek = Series()
    var match = Series()
    var restore = Series()
    var copy = Series()
    /// What each run's restore took beyond its memcpy.
    var beyondCopy = Series()

    mutating func measure(
      _ library: String,
      _ folder: String,
      _ blockByteCount: Int,
      callCount: Int
    ) throws {
      let times = UnsafeMutableBufferPointer<UInt64>.allocate(capacity: 5 * callCount)
      unsafe times.initialize(repeating: 0)
      defer { unsafe times.deallocate() }
      let base = times.baseAddress
      var arrays = unsafe call_bench_times_t(
        call_count: callCount,
        version: base,
        peek: base?.advanced(by: callCount),
        match: base?.advanced(by: 2 * callCount),
        restore: base?.advanced(by: 3 * callCount),
        copy: base?.advanced(by: 4 * callCount)
      )
      var message = [CChar](repeating: 0, count: 512)
      let code = unsafe call_bench_run(
        library,
        folder,
        blockByteCount,
        &arrays,
        &message,
        message.count
      )
      guard code == 0 else {
        let text = String(decoding: message.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self)
        throw CommandFailure("\(library): \(text)")
      }
      func add(_ arm: Int, _ series: inout Series) {
        let calls = unsafe Array(times[arm * callCount..<(arm + 1) * callCount])
        series.latencies += calls
        series.values.append(Series(values: calls.map { Double($0) }).median)
      }
      add(0, &version)
      add(1, &peek)
      add(2, &match)
      add(3, &restore)
      add(4, &copy)
      beyondCopy.values.append((restore.values.last ?? 0) - (copy.values.last ?? 0))
    }

    func report(_ bench: Bench, _ blockByteCount: Int, isFirst: Bool) {
      let block = ["block_bytes": Parameter.integer(blockByteCount)]
      let size = byteText(blockByteCount)
      if isFirst {
        bench.add("kvstore_version", version, unit: "ns", with: block)
        bench.add("kvstore_match of a block, PEEK", peek, unit: "ns", with: block)
        bench.add("kvstore_match of a block, lease released", match, unit: "ns", with: block)
      }
      bench.add(
        "kvstore_restore of \(size) from RAM",
        restore,
        unit: "ns",
        limit: Limit(name: "memcpy of them", value: copy.median),
        with: block
      )
      bench.add(
        "kvstore_restore of \(size), beyond its memcpy",
        beyondCopy,
        unit: "ns",
        with: block
      )
    }
  }
}
