import Glibc
import KVCore
import KVRedis
import KVRemote
import KVStore

/// The remote tier and its client, beside a plain loop on the same server.
struct RemoteWorkload: Workload {
  let name = "remote"
  let pageCacheState = "as the stores leave it"
  let server: RemoteBenchServer
  let roundTrips: [Double]

  func writtenByteCount(_ options: BenchOptions) -> Int {
    let throughput = RemoteBench.blockByteCounts(options).count * 2
    return options.runs * (throughput + 2 * roundTrips.count) * options.total.byteCount
  }

  func run(_ bench: Bench) throws {
    let running = try server.start(bench.folder)
    let remote = try RemoteBench(bench, running)
    if roundTrips.contains(where: { $0 > 0 }) { _ = try remote.relayTarget() }
    bench.report.note("server: \(running.name)")
    defer { remote.cleanUp() }
    do throws(any Error) {
      for byteCount in RemoteBench.blockByteCounts(bench.options) {
        try remote.measureClient(byteCount)
        try remote.measureTier(byteCount)
      }
      for byteCount in RemoteBench.blockByteCounts(bench.options) {
        try remote.measureLookUps(byteCount, roundTrips)
      }
      for roundTrip in roundTrips { try remote.measureSecondMachine(roundTrip) }
      try remote.measureDead()
    } catch let error as RemoteError {
      throw CommandFailure("\(running.name): \(error.text(timeout: 60))")
    }
  }
}

/// What the parts of the workload share.
final class RemoteBench {
  let bench: Bench
  let server: RemoteBenchServer.Running
  let objects: RedisObjects
  /// Of all objects that are no stores'.
  let prefix: String
  private let modelName: String
  private var identities: [NamespaceIdentity] = []
  private var seed: UInt64

  static let connectionCount = 4

  init(_ bench: Bench, _ server: RemoteBenchServer.Running) throws {
    self.bench = bench
    self.server = server
    objects = try server.objects()
    // Of this run alone, on a server that others use as well.
    let mark = "\(getpid())-\(SystemClock().realTimeNanoseconds())"
    prefix = "kvstore-bench:\(mark)"
    modelName = "bench \(mark)"
    seed = bench.options.seed &* 1_000_003
  }

  /// Those of the options, else what models have and what is round.
  static func blockByteCounts(_ options: BenchOptions) -> [Int] {
    options.model == nil && options.blockBytesAsked == nil
      ? [288 << 10, 2 << 20] : [options.blockBytes.byteCount]
  }

  /// Tokens that no prompt before had.
  func nextSeed() -> UInt64 {
    seed += 1
    return seed
  }

  var deadline: UInt64 { KVCore.deadline(after: 60_000_000_000) }

  // MARK: Stores

  func identity(regionByteCounts: [Int]) -> NamespaceIdentity {
    var identity = bench.options.identity
    identity.regionByteCounts = regionByteCounts
    identity.modelName = modelName
    if !identities.contains(where: { $0.regionByteCounts == regionByteCounts }) {
      identities.append(identity)
    }
    return identity
  }

  /// As the options have it, else 64 regions.
  func regionByteCounts(_ blockByteCount: Int) -> [Int] {
    if bench.options.model != nil { return bench.options.regionByteCounts }
    return blockByteCount % 64 == 0
      ? Array(repeating: blockByteCount / 64, count: 64) : [blockByteCount]
  }

  /// A store with the remote tier, patient enough for a slow machine.
  func configuration(
    _ path: String,
    writes: RemoteWrites,
    url: String? = nil
  ) -> StoreConfiguration {
    var configuration = bench.configuration(path, hostBytes: bench.wholeHostBytes + (256 << 20))
    configuration.remote.url = url ?? server.url
    configuration.remote.credentialsFile = server.credentials ?? ""
    configuration.remote.caFile = url == nil ? server.ca ?? "" : ""
    configuration.remote.writes = writes
    configuration.remote.timeToLiveSeconds = 600
    configuration.remote.lookUpTimeoutNanoseconds = 20_000_000_000
    configuration.remote.transferTimeoutNanoseconds = 60_000_000_000
    return configuration
  }

  /// A relay to the server; a round trip of 0 has none.
  ///
  /// Whoever gets one closes it.
  func relayed(_ roundTripMilliseconds: Double) throws -> DelayRelay? {
    guard roundTripMilliseconds > 0 else { return nil }
    return try DelayRelay(relayTarget(), roundTripMilliseconds: roundTripMilliseconds)
  }

  /// Where a relay would lead.
  func relayTarget() throws -> RedisConfiguration.Endpoint {
    let configuration = try server.configuration()
    guard configuration.tls == nil, configuration.endpoints.count == 1 else {
      throw CommandFailure("a round trip above 0 needs one host and no TLS: --round-trip-ms 0")
    }
    return configuration.endpoints[0]
  }

  /// Uses a stored prompt once more, so that all of it is sent, and waits for that.
  func send(_ chain: BlockChain, _ store: Store, _ namespace: Namespace, chunkCount: Int) throws {
    let lease = try chain.tokens.withPrompt(chain.tokens.count) { try namespace.match($0).lease }
    defer { _ = try? store.releaseLease(lease) }
    // Looking at the statistics meanwhile would be part of what is measured.
    store.waitForRemote()
    guard let counts = try store.statistics().remote,
      counts.chunksSent + counts.chunksExisted < UInt64(chunkCount)
    else { return }
    let causes = counts.drops.keys.map(\.rawValue).sorted().joined(separator: ", ")
    throw CommandFailure("not all was sent: \(causes)")
  }

  /// Matches until a prompt is there.
  func find(_ chain: BlockChain, _ namespace: Namespace) throws {
    let end = deadline
    while true {
      let result = try chain.tokens.withPrompt(chain.tokens.count) {
        try namespace.match($0, options: [.peek, .remote])
      }
      if result.blockCount == chain.blocks.count { return }
      guard monotonicNanoseconds() < end else {
        throw CommandFailure("\(result.blockCount) of \(chain.blocks.count) blocks came")
      }
      usleep(500)
    }
  }

  // MARK: What is left

  func remove(_ names: [RemoteName]) throws {
    var rest = names[...]
    while !rest.isEmpty {
      _ = try objects.remove(Array(rest.prefix(512)), deadline: deadline)
      rest = rest.dropFirst(512)
    }
  }

  /// Removes what the stores of this bench wrote.
  func removeChunks() throws {
    for identity in identities {
      guard let namespace = RemoteNamespace(identity, key: nil) else { continue }
      var cursor: ListCursor?
      repeat {
        let page = try objects.list(prefix: namespace.prefix, after: cursor, deadline: deadline)
        try remove(page.names)
        cursor = page.next
      } while cursor != nil
    }
  }

  func cleanUp() {
    // What stays ends by itself.
    if !server.isOwn { try? removeChunks() }
    objects.close()
  }

  /// A figure of blocks of one size.
  func add(
    _ measure: String,
    _ series: Series,
    unit: String,
    limit: Limit? = nil,
    blockByteCount: Int? = nil,
    roundTrip: Double? = nil
  ) {
    var further: [String: Parameter] = ["server": .text(server.name)]
    if let blockByteCount { further["block_bytes"] = .integer(blockByteCount) }
    if let roundTrip {
      further["round_trip_microseconds"] = .integer(Int((roundTrip * 1000).rounded()))
    }
    bench.add(measure, series, unit: unit, limit: limit, with: further)
  }
}
