import ArgumentParser
import KVStore

/// `kvstore bench`: what this machine can do, and how near the store comes to it.
struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measure this machine's limits, and how near the store comes to them.",
    discussion: """
      Each figure stands beside a limit that was measured in the same run, on the same file \
      system; the ratio is value ÷ limit. Without a workload, all but codec run. Writes many times \
      --total to the disk. The options are the same for all but codec: kvstore bench all --help.

      EXAMPLES
        kvstore bench
        kvstore bench restore --block-bytes 288KiB --runs 3
        kvstore bench match --stored-blocks 1000000 --path /mnt/ssd --json
      """,
    subcommands: [
      BenchAll.self, BenchLimits.self, BenchOffload.self, BenchRestore.self, BenchLayerwise.self,
      BenchMixed.self, BenchMatch.self, BenchCodec.self,
    ],
    defaultSubcommand: BenchAll.self
  )
}

/// What every workload takes.
struct BenchOptions: ParsableArguments {
  @Option(
    help: "Folder to measure in; a fresh folder is made in it. (default: the current one)",
    completion: .directory
  )
  var path: String?

  @Option(help: "Payload of a block, for example 288KiB, 2MiB.")
  var blockBytes = ByteSize(2 << 20)

  @Option(help: "Tokens of a block.")
  var tokensPerBlock = 16

  @Option(help: "Payload that a run moves.")
  var total = ByteSize(512 << 20)

  @Option(help: "Runs of each measurement; the median is shown.")
  var runs = 5

  @Option(help: "The most threads that the limits are measured with: 1 to 4.")
  var threads = 4

  @Option(help: "Seed of tokens and payload.")
  var seed: UInt64 = 1

  @Option(help: "Blocks stored for match, at most 1000000.")
  var storedBlocks = 100_000

  @Flag(help: "Print an object a line, for programs; the environment goes to stderr.")
  var json = false

  @Flag(help: "Leave the files, and say where.")
  var keep = false

  func validate() throws {
    guard (1024...64 << 20).contains(blockBytes.byteCount) else {
      throw ValidationError("--block-bytes must be 1KiB to 64MiB.")
    }
    guard total.byteCount >= blockBytes.byteCount, total.byteCount <= 64 << 30 else {
      throw ValidationError("--total must be at least one block, at most 64GiB.")
    }
    guard (1...65_536).contains(tokensPerBlock) else {
      throw ValidationError("--tokens-per-block must be 1 to 65536.")
    }
    guard (1...1000).contains(runs) else { throw ValidationError("--runs must be 1 to 1000.") }
    guard (1...4).contains(threads) else { throw ValidationError("--threads must be 1 to 4.") }
    guard (8_192...1_000_000).contains(storedBlocks) else {
      throw ValidationError("--stored-blocks must be 8192 to 1000000.")
    }
  }

  /// Blocks that a run moves.
  var blockCount: Int { total.byteCount / blockBytes.byteCount }

  /// 64 regions, as 32 layers with K and V have, where the block divides evenly; else one.
  var regionByteCounts: [Int] {
    let bytes = blockBytes.byteCount
    return bytes % 64 == 0 ? Array(repeating: bytes / 64, count: 64) : [bytes]
  }

  /// Runs workloads one after the other in one fresh folder.
  func measure(_ workloads: [any Workload]) throws {
    let bench = try Bench(self)
    defer { bench.cleanUp() }
    try reportingErrors(at: bench.folder) {
      bench.report.showEnvironment(bench.folder)
      for workload in workloads {
        bench.report.begin(workload.name, workload.pageCacheState)
        try workload.run(bench)
        try bench.report.end()
      }
    }
  }
}

/// Something that can be measured.
protocol Workload {
  var name: String { get }
  /// What the page cache holds when it is measured, in words.
  var pageCacheState: String { get }
  func run(_ bench: Bench) throws
}

struct BenchAll: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "all",
    abstract: "Run all workloads but codec (the default)."
  )
  @OptionGroup var options: BenchOptions
  func run() throws {
    try options.measure([
      LimitsWorkload(), OffloadWorkload(), RestoreWorkload(), LayerwiseWorkload(), MixedWorkload(),
      MatchWorkload(),
    ])
  }
}

struct BenchLimits: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "limits",
    abstract: "memcpy, checksum, raw O_DIRECT writes and reads, page-cache reads.",
    discussion: "What the store's own figures are held against. The store itself is not used."
  )
  @OptionGroup var options: BenchOptions

  @Option(help: "Save the bandwidths, for kvstore replay --profile.", completion: .file())
  var saveProfile: String?

  func run() throws { try options.measure([LimitsWorkload(profileFile: saveProfile)]) }
}

struct BenchOffload: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "offload",
    abstract: "Offload a chain of blocks, the final flush counted.",
    discussion: "Into fresh slot files, then again into slots that were used before."
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([OffloadWorkload()]) }
}

struct BenchRestore: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore",
    abstract: "Restore a chain of blocks from RAM and from disk.",
    discussion: """
      The first, untimed pass compares every byte with what was offloaded. Also: from open to the \
      first verified hit, and calls for a single block.
      """
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([RestoreWorkload()]) }
}

struct BenchLayerwise: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "layerwise",
    abstract: "Restore a chain of blocks from disk layer by layer, while layers are computed.",
    discussion: """
      A restore is started for each layer, and each is computed as soon as it is there: for as \
      long as the whole restore takes, divided by the layers. The first, untimed pass compares \
      every byte with what was offloaded.
      """
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([LayerwiseWorkload()]) }
}

struct BenchMixed: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mixed",
    abstract: "Restore from disk while offloads are written.",
    discussion: """
      The 99th percentile of a restore of four blocks, alone and beside an offload that runs at \
      0.6 of its own rate, in a full store that evicts.
      """
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([MixedWorkload()]) }
}

struct BenchMatch: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "match",
    abstract: "Find the longest stored prefix of prompts of 1,024, 32,768 and 131,072 tokens.",
    discussion: "In blocks of 16 tokens with 64 bytes of payload; warm, and straight after open."
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([MatchWorkload()]) }
}
