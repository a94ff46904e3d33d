import AsyncHTTPClient
import Glibc
import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// The companion of one llama-server: lets it go on from what is stored, and stores what it computes.
package final class Companion: Sendable {
  let options: Options
  let logger: Logger
  let server: LlamaServer
  let folder: SlotFolder
  let slots = SlotTable()
  let keeper: Keeper
  let counters = Counters()
  let log = RequestLog()
  let pinBook = PinBook()
  let sessions = SessionBook()
  let namedSessions = NamedSessions()
  let texts = RequestTexts()
  let recorder: Recorder?
  let textRecorder: TextRecorder?
  let startMilliseconds: Double
  /// Between a restore and the start of what needs it nothing else may start: with its default flags the server clears the slots that are
  /// idle then.
  let gate = Gate()
  let storeGate = Gate()
  let threads: NIOThreadPool
  let client: HTTPClient
  /// Requests with adapters of their own, which are passed on: under way, and since the start.
  let foreign = Mutex(Foreign())

  struct Foreign: Sendable, Equatable {
    var active = 0
    var started: UInt64 = 0
  }

  /// Of the file that was restored last; 0 before the first.
  let restoredByteCount = Mutex(0)

  /// The start of the server, by its properties, that cannot go back to the end of a prompt.
  let stuckStart = Mutex<[UInt8]?>(nil)

  /// By the request's id.
  let coming = Mutex<[UInt64: Coming]>([:])

  /// Work that goes on after an answer is out.
  let work = Mutex(Work())

  struct Work: Sendable {
    /// Answers that are being settled.
    var settling = 0
    /// Saved files that are not in the store yet.
    var storing = 0
  }

  package init(_ options: Options, logger: Logger) throws {
    self.options = options
    self.logger = logger
    // What can fail comes first: a client that is not shut down may not go away.
    folder = try SlotFolder(options.slotFolder)
    recorder = try options.recordPath.map { try Recorder($0) }
    textRecorder = try options.recordTextPath.map { try TextRecorder($0) }
    var configuration = HTTPClient.Configuration()
    configuration.redirectConfiguration = .disallow
    configuration.decompression = .disabled
    configuration.httpVersion = .http1Only
    configuration.timeout = .init(connect: .seconds(5), read: nil)
    configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 4096
    configuration.connectionPool.retryConnectionEstablishment = false
    // The server closes a connection that was idle for 5 seconds.
    configuration.connectionPool.idleTimeout = .seconds(3)
    client = HTTPClient(
      eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
      configuration: configuration
    )
    var url = options.serverURL
    while url.hasSuffix("/") { url.removeLast() }
    server = LlamaServer(client: client, url: url, apiKey: options.apiKey)
    threads = NIOThreadPool(numberOfThreads: 4)
    threads.start()
    startMilliseconds = wallMilliseconds()
    let attacher = Attacher(
      server: server,
      folder: folder,
      modelPath: options.modelPath,
      digests: DigestCache(path: options.storePath + ".models")
    )
    keeper = Keeper(attacher, slots, options, threads, logger)
  }

  /// Opens the store and looks for the server from time to time, so that a start of it is known before its first request.
  package func run() async {
    await keeper.openStore()
    var idleLooks = 0
    var waiting: UInt64?
    while !Task.isCancelled {
      _ = await keeper.glance()
      let oldest = await looksForgotten()
      idleLooks = oldest != nil && oldest == waiting ? idleLooks + 1 : 0
      waiting = oldest
      if idleLooks >= 3 { await wake() }
      try? await Task.sleep(for: .milliseconds(500))
    }
  }

  /// What is wrong with the settings of the remote tier: without it something else would run than what was asked for.
  package func remoteMistake() async -> String? {
    if options.remote.url.isEmpty { return nil }
    await keeper.openStore()
    return await keeper.remoteMistake
  }

  /// Something waits for the server, and the server does nothing: the request that waits for longest.
  ///
  /// What wants a slot that is in use is put off there, slot actions too, and each slot that becomes free wakes only one of them: after a
  /// slot action none is woken, and the others wait for a request that may never come.
  private func looksForgotten() async -> UInt64? {
    guard let oldest = server.outstanding.oldest, await isAttached,
      let known = try? await server.get("/slots"), !known.elements.isEmpty,
      known.elements.allSatisfy({ $0["is_processing"]?.bool == false })
    else { return nil }
    return oldest
  }

  /// Ends one request of a single token, which wakes one that was put off; in the slot that is missed least.
  private func wake() async {
    let slot = await slots.leastMissed
    logger.info("the server has forgotten a request that waits for a slot: woken")
    counters.change { $0.wakes += 1 }
    _ = try? await server.post(
      "/completion",
      "{\"prompt\":[1],\"n_predict\":0,\"id_slot\":\(slot),\"cache_prompt\":true}"
    )
  }

  /// Ends: what was answered is stored first.
  package func stop() async {
    let start = nowNanoseconds()
    while pendingCount > 0, milliseconds(since: start) < 10_000 {
      try? await Task.sleep(for: .milliseconds(10))
    }
    await keeper.close()
    folder.removeLeftOvers()
    try? await client.shutdown()
    try? await threads.shutdownGracefully()
  }
}
