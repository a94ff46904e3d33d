import ArgumentParser

// A subcommand for each workload.

struct BenchAll: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "all",
    abstract: "Run all workloads but codec and compare, and mixed with --full only (the default)."
  )
  @OptionGroup var options: BenchOptions
  func run() throws {
    // Mixed writes a gigabyte in each run.
    let mixed: [any Workload] = options.effort == .full ? [MixedWorkload()] : []
    try options.measure(
      [LimitsWorkload(), OffloadWorkload(), RestoreWorkload(), LayerwiseWorkload()] + mixed
        + [
          MatchWorkload(), ScatterWorkload(), CAPIWorkload(library: nil), MultiprocessWorkload(),
        ]
    )
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
    discussion: """
      In blocks of 16 tokens with 64 bytes of payload; warm, and straight after open. Also what a \
      further block costs, in a store with room and in one that evicts. With several numbers in \
      --stored-blocks everything is measured at each.
      """
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([MatchWorkload()]) }
}

struct BenchScatter: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scatter",
    abstract: "Restore into paged memory: pieces of 4 to 64 KiB in random order.",
    discussion: "From RAM and from disk. Blocks are cut into as many whole pieces as they have."
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([ScatterWorkload()]) }
}

struct BenchCAPI: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "capi",
    abstract: "What a call of the C interface costs, through the shared library.",
    discussion: "The library is loaded as an engine loads it; without it the workload says so."
  )
  @OptionGroup var options: BenchOptions

  @Option(help: "libkvstore.so. (default: the one beside this command)", completion: .file())
  var library: String?

  func run() throws { try options.measure([CAPIWorkload(library: library)]) }
}

struct BenchMultiprocess: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "multiprocess",
    abstract: "1, 2 and 4 processes on one store at the same time.",
    discussion: "Each has a quarter of --total to itself: offload, restore from disk, warm matches."
  )
  @OptionGroup var options: BenchOptions
  func run() throws { try options.measure([MultiprocessWorkload()]) }
}
