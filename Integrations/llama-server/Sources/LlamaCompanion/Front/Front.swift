import AsyncHTTPClient
import HTTPTypes
import HummingbirdCore
import KVStore
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import ServiceLifecycle
import Synchronization

/// What clients talk to: passes everything on, and has a few pages of its own.
package struct Front: Sendable {
  let companion: Companion
  let logger: Logger
  let registry = ConnectionWatch.Registry()

  package init(_ companion: Companion, logger: Logger) {
    self.companion = companion
    self.logger = logger
  }

  /// The server as a service of a group.
  package func service() throws -> any Service {
    let registry = registry
    let builder = HTTPServerBuilder { responder in
      HTTP1Channel(
        responder: responder,
        configuration: .init(additionalChannelHandlers: [ConnectionWatch(registry)])
      )
    }
    return try builder.buildServer(
      configuration: ServerConfiguration(
        address: .hostname(companion.options.host, port: companion.options.port),
        reuseAddress: true
      ),
      eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
      logger: logger,
      responder: { request, writer, channel in
        try await self.respond(request, writer, channel)
      },
      onServerRunning: { channel in
        let address = channel.localAddress?.description ?? ""
        self.logger.info("listening", metadata: ["address": "\(address)"])
      }
    )
  }

  /// Lets a task take what cannot be copied.
  final class WriterBox: @unchecked Sendable {
    // Safe to share: taken once, by the only task that answers.
    private var writer: ResponseWriter?
    init(_ writer: consuming ResponseWriter) { self.writer = consume writer }
    func take() -> ResponseWriter { writer.take()! }
  }

  func respond(
    _ request: Request,
    _ writer: consuming ResponseWriter,
    _ channel: any Channel
  ) async throws {
    let watch = registry.watch(of: channel)
    if request.headers[.expect]?.lowercased() == "100-continue" {
      try await writer.writeInformationalHead(HTTPResponse(status: .continue))
    }
    let box = WriterBox(writer)
    let task = Task { try await self.answer(request, box) }
    watch?.onClose { task.cancel() }
    defer { watch?.onClose(nil) }
    try await withTaskCancellationHandler {
      try await task.value
    } onCancel: {
      task.cancel()
    }
  }

  func answer(_ request: Request, _ box: WriterBox) async throws {
    let path = request.head.path ?? "/"
    let plain = path.prefix { $0 != "?" }
    if plain == "/health" || plain == "/metrics" || plain == "/kvstore"
      || plain.hasPrefix("/kvstore/")
    {
      if let page = try await ownPage(request, String(plain)) {
        return try await send(page, box)
      }
    }
    if let page = try await warming(request, path) { return try await send(page, box) }
    let method = request.method.rawValue
    guard RequestKind.completes(method: method, path: path) else {
      return try await forward(
        request,
        path,
        try await self.body(request),
        extra: [],
        exchange: nil,
        box
      )
    }
    // A request that is longer than is looked at goes through as it comes.
    var bytes: [UInt8] = []
    if let length = request.headers[.contentLength].flatMap({ Int($0) }) {
      bytes.reserveCapacity(min(length, companion.options.bodyByteCountMax))
    }
    var iterator = request.body.makeAsyncIterator()
    while let chunk = try await iterator.next() {
      bytes.append(contentsOf: chunk.readableBytesView)
      if bytes.count > companion.options.bodyByteCountMax {
        companion.countPassed("too long to look at")
        let rest = UnsafeIterator(iterator)
        return try await forward(request, path, .rest(bytes, rest), extra: [], exchange: nil, box)
      }
    }
    let json = JSON(bytes)
    let kind = RequestKind(path: path, body: json)
    var exchange = Exchange()
    exchange.id = companion.log.nextID()
    exchange.timeMilliseconds = wallMilliseconds()
    exchange.path = String(plain)
    companion.counters.change { $0.requests += 1 }
    let decision = try await companion.decide(
      body: json,
      kind: kind,
      headers: Self.headers(request),
      exchange: exchange
    )
    switch decision {
    case .gone(let why):
      companion.counters.change { $0.refused += 1 }
      try await send(Self.unavailable(why), box)
    case .pass(let exchange):
      companion.countPassed(exchange.passed ?? "")
      let extra = [("x-kvstore-prefix", exchange.header)]
      let isForeign = exchange.passed == RequestKind.ownAdapters
      if isForeign {
        companion.foreign.withLock {
          $0.active += 1
          $0.started += 1
        }
      }
      defer { if isForeign { companion.foreign.withLock { $0.active -= 1 } } }
      let asked = bytes
      defer { Task { await companion.recordText(exchange, asked) } }
      try await forward(request, path, .bytes(bytes), extra: extra, exchange: exchange, box)
    case .help(let passage, let body, let exchange):
      try await help(request, path, body, kind, passage, exchange, box)
    }
  }

}
