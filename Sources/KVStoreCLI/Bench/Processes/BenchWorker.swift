import ArgumentParser
import KVStore

/// What a process of `multiprocess` does when it is told to.
enum WorkerRole: String, CaseIterable, ExpressibleByArgument {
  case offload, restore, match
}

/// One of the processes of `kvstore bench multiprocess`: says "ready", waits for a line, works, prints nanoseconds.
struct BenchWorker: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "worker",
    abstract: "One of the processes of multiprocess.",
    shouldDisplay: false
  )
  @OptionGroup var options: BenchOptions

  @Option var store: String
  @Option var role: WorkerRole
  @Option var index: UInt64
  @Option var blocks: Int

  private static let matchCount = 200

  func run() throws {
    try reportingErrors(at: store) {
      let memory = try BlockMemory(
        regionByteCounts: options.regionByteCounts,
        blockCount: blocks
      )
      let chain = BlockChain(
        memory,
        tokensPerBlock: options.tokensPerBlock,
        seed: options.seed &+ index
      )
      if role == .offload { memory.fill(seed: options.seed &+ index) }
      let store = try Store.open(options.configuration(store, hostBytes: 256 << 20))
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(options.identity)
      if role != .offload {
        guard try chain.peek(blocks, in: namespace).blockCount == blocks else {
          throw CommandFailure("the store has not all blocks of process \(index)")
        }
      }
      say("ready")
      // The end of the input is the end of the bench.
      guard readLine() != nil else { return }
      say("\(try work(chain, namespace, store))")
    }
  }

  private func work(_ chain: BlockChain, _ namespace: Namespace, _ store: Store) throws -> UInt64 {
    switch role {
    case .offload:
      var ignored: [UInt64] = []
      return try nanoseconds {
        try chain.offload(to: namespace, latencies: &ignored)
        try store.flushAll()
      }
    case .restore:
      let time = try nanoseconds {
        try chain.restore(chain.blocks, from: namespace, into: chain.memory)
      }
      let expected = try BlockMemory(
        regionByteCounts: options.regionByteCounts,
        blockCount: blocks
      )
      expected.fill(seed: options.seed &+ index)
      if let block = expected.firstDifference(from: chain.memory, in: chain.blocks) {
        throw CommandFailure("WRONG BYTES: block \(block) of process \(index)")
      }
      return time
    case .match:
      var calls = Series()
      for _ in 0..<Self.matchCount {
        calls.values.append(Double(try nanoseconds { _ = try chain.peek(blocks, in: namespace) }))
      }
      return UInt64(calls.median)
    }
  }

  /// The other end of the pipe waits for it.
  private func say(_ text: String) {
    print(text)
    flushOutput()
  }
}
