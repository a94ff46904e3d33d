import Glibc
import KVCore
import KVStore

/// Restores from disk while offloads are written: how much longer they take than alone.
struct MixedWorkload: Workload {
  let name = "mixed"
  let pageCacheState = "bypassed where O_DIRECT works"

  /// Blocks of a restore call.
  private static let callBlockCount = 4
  /// Calls of a run, so that the 99th percentile is one of several.
  private static let callCountMin = 400
  /// Of the offload's own rate, so much is asked for beside the restores.
  private static let offloadShare = 0.6

  private struct Figures {
    var idle = Series()
    var mixed = Series()
    var idleRate = Series()
    var mixedRate = Series()
  }

  func run(_ bench: Bench) throws {
    let options = bench.options
    let memory = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    memory.fill(seed: options.seed)
    let target = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    let path = bench.freshStorePath()
    // An arena of an eighth of the blocks: by the time that a block's turn comes again, its copy is gone.
    let store = try Store.open(
      bench.configuration(path, hostBytes: max(16 << 20, bench.wholeHostBytes / 8))
    )
    defer { closeQuietly(store) }
    let namespace = try store.openNamespace(bench.identity)
    let stored = BlockChain(memory, tokensPerBlock: options.tokensPerBlock, seed: options.seed)
    var ignored: [UInt64] = []
    try stored.offload(to: namespace, latencies: &ignored)
    try store.flushAll()
    try stored.checkRestore(from: namespace, into: target)
    // What is restored stays: others leave in its place.
    let lease = try stored.tokens.withPrompt(stored.tokens.count) { prompt in
      try namespace.match(prompt, leaseNanoseconds: Namespace.leaseNanosecondsMax).lease
    }
    var chains = Chains(memory, tokensPerBlock: options.tokensPerBlock, seed: options.seed)
    // Until the store is full: from then on each offload evicts, as in a store that has run for a while.
    for _ in 0..<4 { _ = try offloadRate(chains.next(), namespace, store) }

    var figures = Figures()
    try bench.forEachRun("mixed") { _ in
      guard try store.extendLease(lease, nanoseconds: Namespace.leaseNanosecondsMax) else {
        throw CommandFailure("a run took longer than a lease lasts: lower --total")
      }
      let idle = try restoreAll(stored, namespace, target)
      let idleRate = try offloadRate(chains.next(), namespace, store)
      let background = BackgroundOffload(
        chains,
        namespace,
        bytesPerSecond: idleRate * Self.offloadShare
      )
      try background.start()
      let mixed = try restoreAll(stored, namespace, target)
      let mixedRate = try background.stop()
      chains = background.chains
      add(idle, &figures.idle)
      add(mixed, &figures.mixed)
      figures.idleRate.values.append(idleRate / 1e9)
      figures.mixedRate.values.append(mixedRate / 1e9)
    }
    if !options.keep {
      closeQuietly(store)
      try bench.remove(path)
    }
    report(bench, figures)
  }

  private func add(_ latencies: [UInt64], _ series: inout Series) {
    let p99 = series.percentile(0.99, sorted: latencies.sorted()) ?? 0
    series.values.append(Double(p99))
    series.latencies += latencies
  }

  private func report(_ bench: Bench, _ figures: Figures) {
    let call = ["blocks_per_call": Parameter.integer(Self.callBlockCount)]
    bench.add("restore alone: p99 of a call", figures.idle, unit: "ns", with: call)
    bench.add(
      "restore beside offload: p99 of a call",
      figures.mixed,
      unit: "ns",
      limit: Limit(name: "p99 alone", value: figures.idle.median),
      with: call
    )
    bench.add(
      "offload beside restore: rate",
      figures.mixedRate,
      unit: "GB/s",
      limit: Limit(name: "offload alone, evicting", value: figures.idleRate.median),
      with: call
    )
  }

  /// Restores the chain call by call, over and over, until there are enough; returns the time of each call.
  private func restoreAll(
    _ chain: BlockChain,
    _ namespace: Namespace,
    _ target: BlockMemory
  ) throws -> [UInt64] {
    var latencies: [UInt64] = []
    while latencies.count < Self.callCountMin {
      for first in stride(from: 0, to: chain.blocks.count, by: Self.callBlockCount) {
        let range = first..<min(first + Self.callBlockCount, chain.blocks.count)
        let start = monotonicNanoseconds()
        let result = try chain.restore(range, from: namespace, into: target)
        latencies.append(monotonicNanoseconds() - start)
        guard result.diskBlockCount == range.count else {
          throw CommandFailure("a block came from RAM: raise --total")
        }
      }
    }
    return latencies
  }

  /// Bytes a second of offloading a chain, the flush counted.
  private func offloadRate(
    _ chain: BlockChain,
    _ namespace: Namespace,
    _ store: Store
  ) throws -> Double {
    var ignored: [UInt64] = []
    let time = try nanoseconds {
      try chain.offload(to: namespace, latencies: &ignored)
      try store.flushAll()
    }
    return Double(chain.memory.byteCount) / Double(max(time, 1)) * 1e9
  }
}

/// Chains that were never offered before, of one memory.
private struct Chains {
  private let memory: BlockMemory
  private let tokensPerBlock: Int
  private var seed: UInt64

  init(_ memory: BlockMemory, tokensPerBlock: Int, seed: UInt64) {
    self.memory = memory
    self.tokensPerBlock = tokensPerBlock
    self.seed = seed
  }

  mutating func next() -> BlockChain {
    seed &+= 1
    return BlockChain(memory, tokensPerBlock: tokensPerBlock, seed: seed)
  }
}

/// A thread that offloads at a given rate until it is stopped.
///
/// Unchecked: its chains are its own until the stop.
private final class BackgroundOffload: @unchecked Sendable {
  private struct State {
    var isStopping = false
    var bytesPerSecond: Double?
    var error: (any Error)?
  }

  private(set) var chains: Chains
  private let namespace: Namespace
  private let bytesPerSecond: Double
  private let state = Monitor(State())

  init(_ chains: Chains, _ namespace: Namespace, bytesPerSecond: Double) {
    self.chains = chains
    self.namespace = namespace
    self.bytesPerSecond = bytesPerSecond
  }

  func start() throws { try startThread { [self] in work() } }

  private func work() {
    let start = monotonicNanoseconds()
    var byteCount = 0
    var failure: (any Error)?
    do {
      while !state.withLock({ $0.isStopping }) {
        byteCount += try offload(chains.next(), start, byteCount)
      }
    } catch {
      failure = error
    }
    let seconds = Double(monotonicNanoseconds() - start) / 1e9
    state.withLock { state in
      state.error = failure
      state.bytesPerSecond = Double(byteCount) / seconds
    }
    state.notifyAll()
  }

  /// A chain in small calls, none earlier than the rate allows; returns the bytes until the stop.
  private func offload(
    _ chain: BlockChain,
    _ start: UInt64,
    _ byteCountBefore: Int
  ) throws -> Int {
    var byteCount = 0
    for first in stride(from: 0, to: chain.blocks.count, by: 4) {
      let due = Double(byteCountBefore + byteCount) / bytesPerSecond * 1e9
      let stopped: Bool? = state.wait(until: start + UInt64(due)) { $0.isStopping ? true : nil }
      if stopped == true { break }
      let batch = first..<min(first + 4, chain.blocks.count)
      let result = try chain.tokens.withPrompt(batch.upperBound * chain.tokensPerBlock) { prompt in
        try chain.memory.withTransfer(batch) { try namespace.offload(prompt, $0) }
      }
      guard result.doneBlockCount == batch.count else {
        throw CommandFailure("the store took not all blocks: \(result.firstProblem.text)")
      }
      byteCount += batch.count * chain.memory.blockByteCount
    }
    return byteCount
  }

  /// Bytes a second that were offloaded.
  func stop() throws -> Double {
    state.withLock { $0.isStopping = true }
    state.notifyAll()
    let rate: Double? = state.wait(until: nil) { $0.bytesPerSecond }
    if let error = state.withLock({ $0.error }) { throw error }
    return rate ?? 0
  }
}
