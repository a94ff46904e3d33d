import KVCore
import KVStore

/// A store of many small blocks: a trunk, which the prompts are prefixes of, and branches that fork off it.
final class SmallBlocks {
  static let tokensPerBlock = 16
  static let branchBlockCount = 1_024
  private static let payloadByteCount = 64
  private static let trunkBlockCountMax = 8_192
  /// What a block takes of the catalog with its payload in it is about 620 bytes, and eviction begins at 80 % of the map.
  private static let mapBytesPerBlock = 850

  let bench: Bench
  let path: String
  let blockCount: Int
  let trunk: TokenMemory
  private let inlineMax: Int
  private let trunkBlockCount: Int
  private var generator: UInt64
  private var branchCount: UInt64 = 0
  private(set) var droppedBlockCount = 0

  init(_ bench: Bench, blockCount: Int, inlineMax: Int) {
    self.bench = bench
    self.blockCount = blockCount
    self.inlineMax = inlineMax
    path = bench.freshStorePath()
    generator = bench.options.seed | 1
    trunkBlockCount = min(Self.trunkBlockCountMax, blockCount)
    trunk = TokenMemory(count: trunkBlockCount * Self.tokensPerBlock, seed: bench.options.seed)
  }

  var identity: NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = Self.tokensPerBlock
    identity.regionByteCounts = [Self.payloadByteCount]
    identity.modelName = "bench-match"
    identity.extraByteCountMax = 0
    return identity
  }

  var configuration: StoreConfiguration {
    var configuration = StoreConfiguration(path: path)
    // In a very small map a single commit's pages would count.
    configuration.catalogBytes = max(16 << 20, blockCount * Self.mapBytesPerBlock)
    configuration.capacityBytes = 2 * configuration.catalogBytes + (1 << 30)
    configuration.inlinePayloadBytesMax = inlineMax
    configuration.evictionPolicy = bench.options.evictionPolicy.policy
    // All of them stay in the index.
    configuration.indexBytesMax = 8 << 30
    return configuration
  }

  func add(
    _ measure: String,
    _ series: Series,
    unit: String,
    limit: Limit? = nil,
    with further: [String: Parameter] = [:]
  ) {
    let several = bench.options.storedBlocks.counts.count > 1 && inlineMax > 0
    let params: [String: Parameter] = [
      "measure": .text(several ? "\(blockCount) stored: \(measure)" : measure),
      "stored_blocks": .integer(blockCount),
      "tokens_per_block": .integer(Self.tokensPerBlock),
      "block_bytes": .integer(Self.payloadByteCount),
      "seed": .integer(Int(clamping: bench.options.seed)),
    ]
    bench.report.add(params.merging(further) { $1 }, series, unit: unit, limit: limit)
  }

  /// Matches the first `tokenCount` tokens of the trunk, all of which are stored; returns the lease.
  func match(_ namespace: Namespace, _ tokenCount: Int) throws -> UInt64 {
    let result = try trunk.withPrompt(tokenCount) { try namespace.match($0) }
    guard result.tokenCount == tokenCount else {
      throw CommandFailure("the store found \(result.tokenCount) of \(tokenCount) stored tokens")
    }
    return result.lease
  }

  /// Stores the trunk and branches, `blockCount` blocks in all.
  func fill(_ store: Store, _ namespace: Namespace) throws {
    let memory = try BlockMemory(
      regionByteCounts: [Self.payloadByteCount],
      blockCount: trunkBlockCount + Self.branchBlockCount
    )
    memory.fill(seed: bench.options.seed)
    try offload(trunk, 0..<trunkBlockCount, memory, to: namespace)
    var stored = trunkBlockCount
    while stored < blockCount {
      bench.show("\(stored) of \(blockCount) blocks stored")
      let count = min(Self.branchBlockCount, blockCount - stored)
      let (tokens, first) = nextBranch(count)
      try offload(tokens, first..<first + count, memory, to: namespace)
      stored += count
    }
    try store.flushAll()
  }

  /// Nanoseconds a block of one more branch, flush included.
  ///
  /// In a full store the block that a branch leaves the trunk at may be evicted before the branch is written: such a branch is
  /// dropped, which the store's flush says and `droppedBlockCount` counts.
  func timeOfFurtherBlock(_ store: Store, _ namespace: Namespace) throws -> Double {
    let memory = try BlockMemory(
      regionByteCounts: [Self.payloadByteCount],
      blockCount: trunkBlockCount + Self.branchBlockCount
    )
    let (tokens, first) = nextBranch(Self.branchBlockCount)
    let time = try nanoseconds {
      try offload(tokens, first..<first + Self.branchBlockCount, memory, to: namespace)
      let result = try store.flush()
      guard result.droppedErrorBlockCount == 0 else {
        throw CommandFailure(
          "the store dropped \(result.droppedErrorBlockCount) blocks of an error"
        )
      }
      droppedBlockCount += result.droppedFullBlockCount + result.droppedParentBlockCount
    }
    return Double(time) / Double(Self.branchBlockCount)
  }

  /// Tokens that leave the trunk at a random block, and which block that is.
  private func nextBranch(_ count: Int) -> (tokens: TokenMemory, firstBlock: Int) {
    generator ^= generator << 13
    generator ^= generator >> 7
    generator ^= generator << 17
    branchCount += 1
    let first = Int(generator % UInt64(trunkBlockCount))
    let tokens = TokenMemory(
      forkOf: trunk,
      prefixCount: first * Self.tokensPerBlock,
      count: (first + count) * Self.tokensPerBlock,
      seed: bench.options.seed &+ branchCount &* 0x1_0001
    )
    return (tokens, first)
  }

  /// In pieces that surely find room in the arena.
  private func offload(
    _ tokens: TokenMemory,
    _ blocks: Range<Int>,
    _ memory: BlockMemory,
    to namespace: Namespace
  ) throws {
    for start in stride(from: blocks.lowerBound, to: blocks.upperBound, by: 256) {
      let piece = start..<min(start + 256, blocks.upperBound)
      let result = try tokens.withPrompt(piece.upperBound * Self.tokensPerBlock) { prompt in
        try memory.withTransfer(piece) { try namespace.offload(prompt, $0) }
      }
      guard result.doneBlockCount == piece.count else {
        throw CommandFailure(
          "the store took \(result.doneBlockCount) of \(piece.count) blocks: \(result.firstProblem.text)"
        )
      }
    }
  }
}
