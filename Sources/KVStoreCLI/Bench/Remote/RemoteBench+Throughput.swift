import KVCore
import KVRedis
import KVRemote
import KVStore

/// Bytes a second: of the client, and of the tier.
extension RemoteBench {
  private struct Arm {
    var put = Series()
    var get = Series()
    var putCPU = Series()
    var getCPU = Series()

    mutating func add(put sample: BenchSample) {
      put.values.append(sample.gigabytesPerSecond)
      putCPU.values.append(sample.cpuSecondsPerGigabyte)
    }

    mutating func add(get sample: BenchSample) {
      get.values.append(sample.gigabytesPerSecond)
      getCPU.values.append(sample.cpuSecondsPerGigabyte)
    }
  }

  /// Own and plain, by run: their ratio says more than that of two medians.
  private func ratios(_ own: Series, _ raw: Series) -> Series {
    Series(values: zip(own.values, raw.values).map { $0 / max($1, 1e-12) })
  }

  private func add(
    _ put: String,
    _ get: String,
    _ own: Arm,
    _ raw: Arm?,
    limit: String,
    _ blockByteCount: Int
  ) {
    for (name, value, other, cpu, otherCPU) in [
      (put, own.put, raw?.put, own.putCPU, raw?.putCPU),
      (get, own.get, raw?.get, own.getCPU, raw?.getCPU),
    ] {
      func limited(_ series: Series?) -> Limit? {
        series.map { Limit(name: limit, value: $0.median) }
      }
      add(
        name,
        value,
        unit: "GB/s",
        limit: limited(other),
        blockByteCount: blockByteCount
      )
      if let other {
        add(
          "\(name): of the plain loop, by run",
          ratios(value, other),
          unit: "×",
          blockByteCount: blockByteCount
        )
      }
      add(
        "\(name): CPU time",
        cpu,
        unit: "s/GB",
        limit: limited(otherCPU),
        blockByteCount: blockByteCount
      )
    }
  }

  // MARK: The client

  /// Objects of one block's size, several connections.
  func measureClient(_ byteCount: Int) throws {
    let threadCount = Self.connectionCount
    let count = max(threadCount, bench.options.total.byteCount / byteCount)
    let raw = try RawLoop(
      server.configuration(),
      connectionCount: threadCount,
      prefix: "\(prefix):raw:\(byteCount)",
      byteCount: byteCount
    )
    let client = ClientLoop(objects, prefix: "\(prefix):own:\(byteCount)", byteCount: byteCount)
    // Connecting is not what is measured.
    _ = try client.get(threadCount, mayBeAbsent: true)
    var own = Arm()
    var plain = Arm()
    try bench.forEachRun("put and get, \(byteText(byteCount))") { run in
      // In turns, and not always in the same order.
      for isPut in [true, false] {
        for isOwn in run % 2 == 0 ? [true, false] : [false, true] {
          switch (isOwn, isPut) {
          case (true, true): own.add(put: try client.put(count))
          case (true, false): own.add(get: try client.get(count))
          case (false, true): if let raw { plain.add(put: try raw.put(count)) }
          case (false, false): if let raw { plain.add(get: try raw.get(count)) }
          }
        }
      }
      try remove((0..<count).map(client.name))
      if let raw { try remove((0..<count).map { RemoteName(raw.name($0)) }) }
    }
    let what = "\(byteText(byteCount)) objects, \(threadCount) connections"
    add(
      "put of \(what)",
      "get of \(what)",
      own,
      raw == nil ? nil : plain,
      limit: "plain loop of SET, of GET; as many connections, same objects",
      byteCount
    )
  }

  // MARK: The tier

  /// Blocks of one size, in chunks, from store to store.
  func measureTier(_ blockByteCount: Int) throws {
    let regions = regionByteCounts(blockByteCount)
    let identity = identity(regionByteCounts: regions)
    let blocksPerChunk = RemoteNamespace.blocksPerChunk(blockByteCount: blockByteCount)
    let chunkCount = max(
      1,
      bench.options.total.byteCount / blockByteCount / blocksPerChunk
    )
    let memory = try BlockMemory(
      regionByteCounts: regions,
      blockCount: chunkCount * blocksPerChunk
    )
    memory.fill(seed: bench.options.seed)
    let target = try BlockMemory(regionByteCounts: regions, blockCount: memory.blockCount)
    // One thread sends, and one fetches a prompt.
    let raw = try RawLoop(
      server.configuration(),
      connectionCount: 1,
      prefix: "\(prefix):raw:chunks",
      byteCount: blocksPerChunk * blockByteCount
    )
    var own = Arm()
    var plain = Arm()
    try bench.forEachRun("send and fetch, \(byteText(blockByteCount))") { run in
      let chain = BlockChain(
        memory,
        tokensPerBlock: bench.options.tokensPerBlock,
        seed: nextSeed()
      )
      let paths = [bench.freshStorePath(), bench.freshStorePath()]
      let sender = try Store.open(configuration(paths[0], writes: .reused))
      defer { closeQuietly(sender) }
      let namespace = try sender.openNamespace(identity)
      var latencies: [UInt64] = []
      try chain.offload(to: namespace, latencies: &latencies)
      try sender.flushAll()
      for isOwn in run % 2 == 0 ? [true, false] : [false, true] {
        if isOwn {
          own.add(
            put: try BenchSample(byteCount: memory.byteCount) {
              try send(chain, sender, namespace, chunkCount: chunkCount)
            }
          )
        } else if let raw {
          plain.add(put: try raw.put(chunkCount))
        }
      }
      let receiver = try Store.open(configuration(paths[1], writes: .off))
      defer { closeQuietly(receiver) }
      let there = try receiver.openNamespace(identity)
      for isOwn in run % 2 == 0 ? [true, false] : [false, true] {
        if isOwn {
          own.add(
            get: try BenchSample(byteCount: memory.byteCount) { try find(chain, there) }
          )
        } else if let raw {
          plain.add(get: try raw.get(chunkCount))
        }
      }
      try chain.checkRestore(from: there, into: target)
      if let raw { try remove((0..<chunkCount).map { RemoteName(raw.name($0)) }) }
      try removeChunks()
      try receiver.close()
      try sender.close()
      if !bench.options.keep { for path in paths { try bench.remove(path) } }
    }
    let what = "\(byteText(blockByteCount)) blocks, \(counted(blocksPerChunk, "block")) a chunk"
    add(
      "send of \(what)",
      "fetch of \(what)",
      own,
      raw == nil ? nil : plain,
      limit: "plain loop of SET, of GET; 1 connection, objects of a chunk's size",
      blockByteCount
    )
  }
}

/// What `RawLoop` does, by the client.
///
/// Unsafe: each thread has memory of its own.
@safe private final class ClientLoop: @unchecked Sendable {
  private let objects: RedisObjects
  private let prefix: String
  private let byteCount: Int
  private let memories: [UnsafeMutableRawBufferPointer]

  init(_ objects: RedisObjects, prefix: String, byteCount: Int) {
    self.objects = objects
    self.prefix = prefix
    self.byteCount = byteCount
    unsafe memories = (0..<RemoteBench.connectionCount).map { _ in
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
      unsafe memory.initializeMemory(as: UInt8.self, repeating: 7)
      return unsafe memory
    }
  }

  deinit { unsafe memories.forEach { unsafe $0.deallocate() } }

  func name(_ number: Int) -> RemoteName { RemoteName("\(prefix):\(number)") }

  func put(_ count: Int) throws -> BenchSample {
    try unsafe measure(count) { name, memory in
      _ = try unsafe self.objects.putIfAbsent(
        name,
        pieces: [UnsafeRawBufferPointer(memory)],
        timeToLiveMilliseconds: 600_000,
        deadline: deadline(after: 60_000_000_000)
      )
    }
  }

  func get(_ count: Int, mayBeAbsent: Bool = false) throws -> BenchSample {
    try unsafe measure(count) { name, memory in
      var read = RemoteRead.absent
      try unsafe self.objects.get([name], deadline: deadline(after: 60_000_000_000)) { _, count in
        unsafe count == memory.count ? memory : nil
      } done: {
        read = $1
      }
      guard read == .whole(byteCount: self.byteCount) || mayBeAbsent else {
        throw CommandFailure("the server has lost an object (is it full?)")
      }
    }
  }

  private func measure(
    _ count: Int,
    _ body: @escaping @Sendable (RemoteName, UnsafeMutableRawBufferPointer) throws -> Void
  ) throws -> BenchSample {
    let threadCount = RemoteBench.connectionCount
    return try BenchSample(byteCount: count * byteCount, threadCount: threadCount) { thread in
      for index in stride(from: thread, to: count, by: threadCount) {
        try unsafe body(self.name(index), self.memories[thread])
      }
    }
  }
}
