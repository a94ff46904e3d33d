import ArgumentParser
import KVCore
import KVStore

/// `kvstore bench`: what this machine can do, and how near the store comes to it.
struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measure this machine's limits, and how near the store comes to them.",
    discussion: """
      Each figure stands beside a limit that was measured in the same run, on the same file \
      system; the ratio is value ÷ limit. Without a workload, all but remote, codec and compare run. It says first how much it will \
      write: 2 to 3 GiB as --quick, which is the default, and some 60 GiB as --full, whose figures vary less. The options are \
      the same for all but codec: kvstore bench all --help.

      EXAMPLES
        kvstore bench
        kvstore bench --full --json >figures.jsonl
        kvstore bench restore --block-bytes 288KiB --runs 3
        kvstore bench restore --model qwen3-32b --plot restore.svg
        kvstore bench match --stored-blocks 10000,1000000 --path /mnt/ssd --json
        kvstore bench compare --model gemma-3-270m
      """,
    subcommands: [
      BenchAll.self, BenchLimits.self, BenchOffload.self, BenchRestore.self, BenchLayerwise.self,
      BenchMixed.self, BenchMatch.self, BenchScatter.self, BenchCAPI.self, BenchMultiprocess.self,
      BenchRemote.self, BenchCompare.self, BenchCodec.self, BenchWorker.self,
    ],
    defaultSubcommand: BenchAll.self
  )
}

/// How much a bench moves where the options do not say.
enum BenchEffort: String, EnumerableFlag {
  case quick, full

  static func help(for value: BenchEffort) -> ArgumentHelp? {
    switch value {
    case .quick: "Move 32 MiB in 3 runs, with 10,000 blocks for match. (default)"
    case .full: "Move 512 MiB in 5 runs, with 100,000 blocks for match."
    }
  }
}

/// What every workload takes.
struct BenchOptions: ParsableArguments {
  @Option(
    help: "Folder to measure in; a fresh folder is made in it. (default: the current one)",
    completion: .directory
  )
  var path: String?

  @Option(
    name: .customLong("block-bytes"),
    help: "Payload of a block, for example 288KiB. (default: 2MiB)"
  )
  var blockBytesAsked: ByteSize?

  @Option(help: "Blocks as this model's KV has them: their bytes follow from --tokens-per-block.")
  var model: ModelPreset?

  @Option(help: "Tokens of a block.")
  var tokensPerBlock = 16

  @Flag(exclusivity: .exclusive)
  var effort = BenchEffort.quick

  @Option(
    name: .customLong("total"),
    help: ArgumentHelp(
      "Payload that a run moves. (default: 32MiB, with --full 512MiB)",
      valueName: "bytes"
    )
  )
  var totalAsked: ByteSize?

  @Option(
    name: .customLong("runs"),
    help: ArgumentHelp(
      "Runs of each measurement; the median is shown. (default: 3, with --full 5)",
      valueName: "count"
    )
  )
  var runsAsked: Int?

  @Option(help: "The most threads that the limits are measured with: 1 to 4.")
  var threads = 4

  @Option(help: "Seed of tokens and payload.")
  var seed: UInt64 = 1

  @Option(
    name: .customLong("stored-blocks"),
    help: ArgumentHelp(
      "Blocks stored for match, 1000 to 10000000; several numbers with commas between.",
      discussion: "(default: 10000, with --full 100000)",
      valueName: "count"
    )
  )
  var storedBlocksAsked: BlockCounts?

  @Option(
    help: "What leaves first in the stores that are measured: density or lru; capi has the default."
  )
  var evictionPolicy = EvictionPolicyArgument.density

  @Option(help: "Draw the figures into this file.", completion: .file(extensions: ["svg"]))
  var plot: String?

  @Flag(help: "Print an object a line, for programs; the environment goes to stderr.")
  var json = false

  @Flag(help: "Leave the files, and say where.")
  var keep = false

  func validate() throws {
    guard model == nil || blockBytesAsked == nil else {
      throw ValidationError("--model sets the bytes of a block: leave --block-bytes out.")
    }
    guard (1...65_536).contains(tokensPerBlock) else {
      throw ValidationError("--tokens-per-block must be 1 to 65536.")
    }
    guard (1024...64 << 20).contains(blockBytes.byteCount) else {
      throw ValidationError("a block must have 1KiB to 64MiB (--block-bytes, --tokens-per-block).")
    }
    guard total.byteCount >= blockBytes.byteCount, total.byteCount <= 64 << 30 else {
      throw ValidationError("--total must be at least one block, at most 64GiB.")
    }
    guard (1...1000).contains(runs) else { throw ValidationError("--runs must be 1 to 1000.") }
    guard (1...4).contains(threads) else { throw ValidationError("--threads must be 1 to 4.") }
  }

  /// Payload that a run moves.
  var total: ByteSize { totalAsked ?? ByteSize(effort == .full ? 512 << 20 : 32 << 20) }

  /// Runs of each measurement.
  var runs: Int { runsAsked ?? (effort == .full ? 5 : 3) }

  /// Blocks that are stored for match.
  var storedBlocks: BlockCounts {
    storedBlocksAsked ?? BlockCounts([effort == .full ? 100_000 : 10_000])
  }

  /// Payload of a block.
  var blockBytes: ByteSize {
    if let model {
      return ByteSize(model.regionByteCounts(tokensPerBlock: tokensPerBlock).reduce(0, +))
    }
    return blockBytesAsked ?? ByteSize(2 << 20)
  }

  /// Blocks that a run moves.
  var blockCount: Int { total.byteCount / blockBytes.byteCount }

  /// Regions of a layer: its K and its V, or what the model has instead.
  var regionsPerLayer: Int { model?.regionsPerLayer ?? 2 }

  /// The model's; else 64 regions, as 32 layers with K and V have, where the block divides evenly; else one.
  var regionByteCounts: [Int] {
    if let model { return model.regionByteCounts(tokensPerBlock: tokensPerBlock) }
    let bytes = blockBytes.byteCount
    return bytes % 64 == 0 ? Array(repeating: bytes / 64, count: 64) : [bytes]
  }

  /// A store's configuration with room for twice `total`.
  func configuration(_ path: String, hostBytes: Int) -> StoreConfiguration {
    var configuration = StoreConfiguration(path: path)
    configuration.capacityBytes = max(1 << 30, 4 * total.byteCount)
    configuration.hostBytes = hostBytes
    configuration.inlinePayloadBytesMax = min(16 << 10, blockBytes.byteCount - 1)
    configuration.evictionPolicy = evictionPolicy.policy
    return configuration
  }

  /// The identity of the bench's blocks.
  var identity: NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = tokensPerBlock
    identity.regionByteCounts = regionByteCounts
    identity.modelName = "bench"
    identity.kvDtype = "fp16"
    identity.extraByteCountMax = 0
    return identity
  }

  /// Runs workloads one after the other in one fresh folder.
  func measure(_ workloads: [any Workload]) throws {
    let bench = try Bench(self)
    defer { bench.cleanUp() }
    try reportingErrors(at: bench.folder) {
      bench.report.showEnvironment(
        bench.folder,
        writtenByteCount: workloads.reduce(0) { $0 + $1.writtenByteCount(self) }
      )
      for (index, workload) in workloads.enumerated() {
        bench.step = "\(index + 1)/\(workloads.count) \(workload.name)"
        bench.report.begin(workload.name, workload.pageCacheState)
        try workload.run(bench)
        try bench.report.end()
      }
    }
    if let plot {
      try writeFile(plot, BenchPlot(figures: bench.report.allFigures).text())
    }
  }
}

/// Something that can be measured.
protocol Workload {
  var name: String { get }
  /// What the page cache holds when it is measured, in words.
  var pageCacheState: String { get }
  /// About how many bytes it writes to the disk.
  func writtenByteCount(_ options: BenchOptions) -> Int
  func run(_ bench: Bench) throws
}
