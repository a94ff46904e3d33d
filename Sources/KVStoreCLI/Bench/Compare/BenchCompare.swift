import ArgumentParser
import Glibc

/// `kvstore bench compare`: the same blocks through what people use instead.
struct BenchCompare: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract: "The same blocks through this store and through what people use instead.",
    discussion: """
      A file for each block with rename (nothing is synced), the same with fsync, values of LMDB, \
      and RocksDB with blob files. All in the same run, in turns; the ratio is value ÷ this \
      store's, so it is below 1 where this store is ahead in throughput, and above 1 where it is \
      ahead in time. LMDB and RocksDB come from a program of their own, since this command depends \
      on neither: swift build -c release --package-path Benchmarks/peers
      """
  )
  @OptionGroup var options: BenchOptions

  @Option(
    help: "The program with LMDB and RocksDB. (default: beside this command, or as built above)",
    completion: .file()
  )
  var peers: String?

  func run() throws { try options.measure([CompareWorkload(peerProgram: peers)]) }
}

/// One way to keep blocks.
protocol CompareArm {
  var name: String { get }
  /// Whether what was written survives power loss when `write` is over.
  var isDurable: Bool { get }
  func run(_ bench: Bench, _ folder: String) throws -> ArmTimes
}

/// Nanoseconds of one run of one arm.
struct ArmTimes {
  var write: UInt64
  /// The page cache empty.
  var coldRead: UInt64
  /// Finding out that all blocks are there.
  var lookUp: UInt64
  var warmRead: UInt64
}

/// Runs the arms in turns and sets each against the store.
struct CompareWorkload: Workload {
  let name = "compare"
  let pageCacheState = "dropped before the cold reads"
  let peerProgram: String?

  private struct ArmSeries {
    var arm: any CompareArm
    var write = Series()
    var coldRead = Series()
    var lookUp = Series()
    var warmRead = Series()
  }

  func run(_ bench: Bench) throws {
    var arms: [any CompareArm] = [StoreArm(), FileArm(isDurable: false), FileArm(isDurable: true)]
    if let program = peerProgram ?? Self.foundProgram() {
      arms += [
        PeerArm(program, "lmdb", "LMDB values"), PeerArm(program, "blobdb", "RocksDB BlobDB"),
      ]
    } else {
      writeError(
        """
        kvstore: without LMDB and RocksDB. They need liblmdb-dev and librocksdb-dev, and in the source tree: \
        swift build -c release --package-path Benchmarks/peers

        """
      )
    }
    var series = arms.map { ArmSeries(arm: $0) }
    let byteCount = bench.options.blockCount * bench.options.blockBytes.byteCount
    try bench.forEachRun("compare") { run in
      // In another order each time, so that nobody always comes after the same one.
      for turn in series.indices {
        let index = (turn + run) % series.count
        bench.show("run \(run + 1) of \(bench.options.runs), \(series[index].arm.name)")
        let folder = bench.freshStorePath()
        let times = try series[index].arm.run(bench, folder)
        series[index].write.values.append(gigabytesPerSecond(byteCount, times.write))
        series[index].coldRead.values.append(gigabytesPerSecond(byteCount, times.coldRead))
        series[index].lookUp.values.append(Double(times.lookUp))
        series[index].warmRead.values.append(gigabytesPerSecond(byteCount, times.warmRead))
        try bench.remove(folder)
      }
    }
    report(bench, series)
  }

  private func report(_ bench: Bench, _ series: [ArmSeries]) {
    let columns: [(name: String, unit: String, values: KeyPath<ArmSeries, Series>)] = [
      ("write", "GB/s", \.write), ("cold read", "GB/s", \.coldRead),
      ("look-up of all blocks", "ns", \.lookUp), ("warm read", "GB/s", \.warmRead),
    ]
    for column in columns {
      let ours = series[0][keyPath: column.values].median
      for one in series {
        let isVolatile = column.name == "write" && !one.arm.isDurable
        bench.add(
          "\(column.name): \(one.arm.name)\(isVolatile ? " (not durable)" : "")",
          one[keyPath: column.values],
          unit: column.unit,
          limit: Limit(name: "kvstore", value: ours),
          with: ["arm": .text(one.arm.name)]
        )
      }
    }
  }

  private static func foundProgram() -> String? {
    let built = "Benchmarks/peers/.build/release/kvstore-peers"
    var folder = programFolder()
    var candidates = ["\(folder)/kvstore-peers", built]
    // The build folder or the installed tree may lie within the source tree.
    for _ in 0..<4 {
      candidates.append("\(folder)/\(built)")
      folder += "/.."
    }
    return candidates.first { unsafe access($0, X_OK) == 0 }
  }
}
