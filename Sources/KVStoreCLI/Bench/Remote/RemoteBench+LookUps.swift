import Glibc
import KVCore
import KVRedis
import KVRemote
import KVStore

/// How long it takes until something is found: questions, and a prefix that another machine stored.
extension RemoteBench {
  private static let lookUpTokenCount = 131_072
  /// Chunks are asked for by their names: what is in them is no matter, and need not be moved.
  private static let smallRegion = 64

  // MARK: Questions

  /// The rounds of questions for a long prompt of which a part is there, in chunks as blocks of that size have them.
  func measureLookUps(_ blockByteCount: Int, _ roundTrips: [Double]) throws {
    let blocksPerChunk = RemoteNamespace.blocksPerChunk(blockByteCount: blockByteCount)
    let blockCount =
      max(
        1,
        Self.lookUpTokenCount / bench.options.tokensPerBlock / blocksPerChunk
      ) * blocksPerChunk
    // Chunks of another number of blocks are those of another namespace.
    let regions = [Self.smallRegion + blocksPerChunk]
    let identity = identity(regionByteCounts: regions)
    let memory = try BlockMemory(regionByteCounts: regions, blockCount: blockCount)
    memory.fill(seed: bench.options.seed)
    let chain = BlockChain(
      memory,
      tokensPerBlock: bench.options.tokensPerBlock,
      seed: nextSeed()
    )
    bench.show("chunks for look-ups, \(byteText(blockByteCount))")
    let path = bench.freshStorePath()
    var settings = configuration(path, writes: .reused)
    settings.remote.blocksPerChunk = blocksPerChunk
    let sender = try Store.open(settings)
    defer { closeQuietly(sender) }
    let namespace = try sender.openNamespace(identity)
    var latencies: [UInt64] = []
    try chain.offload(to: namespace, batchCount: 1024, latencies: &latencies)
    try sender.flushAll()
    let chunkCount = blockCount / blocksPerChunk
    try send(chain, sender, namespace, chunkCount: chunkCount)
    // Where all is there the last question says so; an end in the middle has to be found.
    let prompt = TokenMemory(
      forkOf: chain.tokens,
      prefixCount: max(1, chunkCount * 3 / 5) * blocksPerChunk * bench.options.tokensPerBlock,
      count: chain.tokens.count,
      seed: nextSeed()
    )
    for roundTrip in roundTrips {
      try measureLookUps(prompt, identity, blockByteCount, blocksPerChunk, roundTrip)
    }
    if !server.isOwn { try removeChunks() }
    try sender.close()
    if !bench.options.keep { try bench.remove(path) }
  }

  private func measureLookUps(
    _ prompt: TokenMemory,
    _ identity: NamespaceIdentity,
    _ blockByteCount: Int,
    _ blocksPerChunk: Int,
    _ roundTrip: Double
  ) throws {
    let relay = try relayed(roundTrip)
    defer { relay?.close() }
    var times = Series()
    var rounds = Series()
    var single = Series()
    try bench.forEachRun("look-up, \(RoundTrips.text(roundTrip)) ms of round trip") { _ in
      let client = try RedisObjects(server.configuration(relay?.url))
      let counting = CountingObjects(client)
      let path = bench.freshStorePath()
      var settings = configuration(path, writes: .off, url: relay?.url)
      settings.remote.blocksPerChunk = blocksPerChunk
      settings.remote.objects = counting
      let store = try Store.open(settings)
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(identity)
      _ = try prompt.withPrompt(prompt.count) {
        try namespace.match($0, options: [.peek, .remote])
      }
      let end = deadline
      while !counting.counts.isFetching {
        guard monotonicNanoseconds() < end else { throw CommandFailure("a look-up did not end") }
        usleep(200)
      }
      let counts = counting.counts
      times.values.append(Double(counts.lastAnsweredAt - counts.firstAskedAt))
      rounds.values.append(Double(counts.roundCount))
      // As many questions for one name each, one after the other, by the same way.
      let other = try RedisObjects(server.configuration(relay?.url))
      defer { other.close() }
      let name = RemoteName("\(prefix):nothing")
      _ = try other.exist([name], deadline: deadline)
      single.values.append(
        Double(
          try nanoseconds {
            for _ in 0..<counts.roundCount { _ = try other.exist([name], deadline: deadline) }
          }
        )
      )
      try store.close()
      if !bench.options.keep { try bench.remove(path) }
    }
    let what =
      "look-up of \(prompt.count) tokens in \(byteText(blockByteCount)) blocks, "
      + "\(RoundTrips.text(roundTrip)) ms of round trip"
    add(
      what,
      times,
      unit: "ns",
      limit: Limit(name: "as many questions for one name each", value: single.median),
      blockByteCount: blockByteCount,
      roundTrip: roundTrip
    )
    add(
      "\(what): round trips",
      rounds,
      unit: "",
      blockByteCount: blockByteCount,
      roundTrip: roundTrip
    )
  }

  // MARK: Two machines

  /// From a machine's flush until another one has all of a new prompt.
  func measureSecondMachine(_ roundTrip: Double) throws {
    let blockByteCount = bench.options.blockBytes.byteCount
    let regions = regionByteCounts(blockByteCount)
    let identity = identity(regionByteCounts: regions)
    let blocksPerChunk = RemoteNamespace.blocksPerChunk(blockByteCount: blockByteCount)
    let chunkCount = max(1, bench.options.total.byteCount / blockByteCount / blocksPerChunk)
    let memory = try BlockMemory(
      regionByteCounts: regions,
      blockCount: chunkCount * blocksPerChunk
    )
    memory.fill(seed: bench.options.seed)
    let target = try BlockMemory(regionByteCounts: regions, blockCount: memory.blockCount)
    let relay = try relayed(roundTrip)
    defer { relay?.close() }
    let paths = [bench.freshStorePath(), bench.freshStorePath()]
    let first = try Store.open(configuration(paths[0], writes: .all, url: relay?.url))
    defer { closeQuietly(first) }
    let second = try Store.open(configuration(paths[1], writes: .off, url: relay?.url))
    defer { closeQuietly(second) }
    let here = try first.openNamespace(identity)
    let there = try second.openNamespace(identity)
    var series = Series()
    try bench.forEachRun("a second machine, \(RoundTrips.text(roundTrip)) ms") { _ in
      let chain = BlockChain(
        memory,
        tokensPerBlock: bench.options.tokensPerBlock,
        seed: nextSeed()
      )
      var latencies: [UInt64] = []
      try chain.offload(to: here, latencies: &latencies)
      try first.flushAll()
      let time = try nanoseconds { try find(chain, there) }
      series.values.append(Double(time))
      series.latencies.append(time)
      try chain.checkRestore(from: there, into: target)
    }
    try second.close()
    try first.close()
    if !server.isOwn { try removeChunks() }
    if !bench.options.keep { for path in paths { try bench.remove(path) } }
    add(
      "from the flush until a second machine has \(byteText(memory.byteCount)), "
        + "\(RoundTrips.text(roundTrip)) ms of round trip",
      series,
      unit: "ns",
      blockByteCount: blockByteCount,
      roundTrip: roundTrip
    )
  }
}
