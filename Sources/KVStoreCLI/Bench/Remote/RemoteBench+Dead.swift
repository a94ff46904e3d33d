import Glibc
import KVCore
import KVRedis
import KVStore

/// What a match costs beside a remote tier that is dead.
extension RemoteBench {
  private static let promptTokenCount = 32_768
  private static let callCount = 2_000
  private static let turnCallCount = 50

  private struct Arm {
    let name: String
    let store: Store
    let namespace: Namespace
    let chain: BlockChain
    var runs: [[UInt64]] = []
  }

  /// Matches of prompts of which a half is stored, so that the other half would be looked up: without a remote tier, with one whose
  /// port is closed, and with one that takes connections and says nothing.
  func measureDead() throws {
    // Taken by nobody: the system completes connections, and nothing answers.
    guard let silent = LoopbackListener(), let closed = LoopbackListener()?.port else {
      throw CommandFailure("there is no free port: \(errorText(errno))")
    }
    let urls: [(name: String, url: String?)] = [
      ("without a remote tier", nil), ("port closed", "redis://127.0.0.1:\(closed)"),
      ("no answer", "redis://127.0.0.1:\(silent.port)"),
    ]
    let paths = urls.map { _ in bench.freshStorePath() }
    var arms = try zip(urls, paths).map { arm, path in try makeArm(arm.name, arm.url, path) }
    defer { for arm in arms { closeQuietly(arm.store) } }
    try measureUntilKnown(&arms)
    try bench.forEachRun("match beside a dead remote") { run in
      for index in arms.indices { arms[index].runs.append([]) }
      for turn in 0..<Self.callCount / Self.turnCallCount {
        for step in arms.indices {
          // Whose turn it is first changes: clocks and caches do, too.
          let index = (step + turn) % arms.count
          for _ in 0..<Self.turnCallCount { arms[index].runs[run].append(try match(arms[index])) }
        }
      }
    }
    for arm in arms.dropFirst() { report(arm, beside: arms[0], "left alone: \(arm.name)") }
    withExtendedLifetime(silent) {}
    for arm in arms { try arm.store.close() }
    if !bench.options.keep { for path in paths { try bench.remove(path) } }
  }

  private func makeArm(_ name: String, _ url: String?, _ path: String) throws -> Arm {
    var settings = configuration(path, writes: .reused, url: url)
    settings.remote.credentialsFile = ""
    if url == nil {
      settings.remote = RemoteConfiguration()
    } else {
      // Those of a store that sets nothing.
      let usual = RemoteConfiguration()
      settings.remote.lookUpTimeoutNanoseconds = usual.lookUpTimeoutNanoseconds
      settings.remote.transferTimeoutNanoseconds = usual.transferTimeoutNanoseconds
    }
    let store = try Store.open(settings)
    var identity = bench.options.identity
    identity.tokensPerBlock = SmallBlocks.tokensPerBlock
    identity.regionByteCounts = [64]
    let namespace = try store.openNamespace(identity)
    let blockCount = Self.promptTokenCount / 2 / SmallBlocks.tokensPerBlock
    let memory = try BlockMemory(regionByteCounts: [64], blockCount: blockCount)
    let stored = BlockChain(
      memory,
      tokensPerBlock: SmallBlocks.tokensPerBlock,
      seed: bench.options.seed
    )
    var latencies: [UInt64] = []
    try stored.offload(to: namespace, batchCount: 512, latencies: &latencies)
    try store.flushAll()
    return Arm(name: name, store: store, namespace: namespace, chain: stored)
  }

  /// One match of the stored half and another half that never was.
  private func match(_ arm: Arm, _ prompt: TokenMemory? = nil) throws -> UInt64 {
    let prompt = prompt ?? self.longPrompt(arm)
    return try prompt.withPrompt(prompt.count) { prompt in
      let start = monotonicNanoseconds()
      let result = try arm.namespace.match(prompt, options: .remote)
      let time = monotonicNanoseconds() - start
      guard result.tokenCount == Self.promptTokenCount / 2 else {
        throw CommandFailure("the store found \(result.tokenCount) tokens of those that it has")
      }
      _ = try arm.store.releaseLease(result.lease)
      return time
    }
  }

  private func longPrompt(_ arm: Arm) -> TokenMemory {
    TokenMemory(
      forkOf: arm.chain.tokens,
      prefixCount: arm.chain.tokens.count,
      count: Self.promptTokenCount,
      seed: nextSeed()
    )
  }

  /// The matches until each of them is left alone: those that a failure is found by.
  private func measureUntilKnown(_ arms: inout [Arm]) throws {
    var plain = Series()
    for index in arms.indices.dropFirst() {
      var series = Series()
      let end = deadline
      // Not more than one needs: each is a look-up of its own.
      while try arms[index].store.statistics().remote?.isBreakerOpen == false {
        series.latencies.append(try match(arms[index]))
        plain.latencies.append(try match(arms[0]))
        guard monotonicNanoseconds() < end else {
          throw CommandFailure("a dead remote is not left alone")
        }
        usleep(1000)
      }
      add99("match beside a dead remote, until it is known: \(arms[index].name)", series, plain)
    }
  }

  private func report(_ arm: Arm, beside plain: Arm, _ what: String) {
    var own = Series(latencies: arm.runs.flatMap { $0 })
    own.values = arm.runs.map(Self.percentile99)
    let limit = Series(values: plain.runs.map(Self.percentile99))
    let ratios = zip(own.values, limit.values).map { $0 / max($1, 1) }
    add(
      "match beside a dead remote, \(what): 99th percentile",
      own,
      unit: "ns",
      limit: Limit(name: "99th percentile of a match without a remote tier", value: limit.median)
    )
    add(
      "match beside a dead remote, \(what): 99th percentiles, of that without, by run",
      Series(values: ratios),
      unit: "×"
    )
  }

  private func add99(_ measure: String, _ own: Series, _ plain: Series) {
    guard !own.latencies.isEmpty else { return }
    add(
      "\(measure): 99th percentile",
      Series(values: [Self.percentile99(own.latencies)], latencies: own.latencies),
      unit: "ns",
      limit: Limit(
        name: "99th percentile of a match without a remote tier",
        value: Self.percentile99(plain.latencies)
      )
    )
  }

  private static func percentile99(_ latencies: [UInt64]) -> Double {
    Double(Series().percentile(0.99, sorted: latencies.sorted()) ?? 0)
  }
}
