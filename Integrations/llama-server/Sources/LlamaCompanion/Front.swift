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
  private let companion: Companion
  private let logger: Logger
  private let registry = ConnectionWatch.Registry()

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
  private final class WriterBox: @unchecked Sendable {
    // Safe to share: taken once, by the only task that answers.
    private var writer: ResponseWriter?
    init(_ writer: consuming ResponseWriter) { self.writer = consume writer }
    func take() -> ResponseWriter { writer.take()! }
  }

  private func respond(
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

  private func answer(_ request: Request, _ box: WriterBox) async throws {
    let path = request.head.path ?? "/"
    let plain = path.prefix { $0 != "?" }
    if plain == "/health" || plain == "/metrics" || plain == "/kvstore"
      || plain.hasPrefix("/kvstore/")
    {
      if let page = try await ownPage(request, String(plain)) {
        return try await send(page, box)
      }
    }
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
      path: path,
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
      try await forward(request, path, .bytes(bytes), extra: extra, exchange: exchange, box)
    case .help(let passage, let body, let exchange):
      try await help(request, path, body, kind, passage, exchange, box)
    }
  }

  // ---------------------------------------------------------------- passing on

  /// An iterator that one task hands to another and uses no more.
  private final class UnsafeIterator: AsyncSequence, @unchecked Sendable {
    typealias Element = ByteBuffer
    private var iterator: RequestBody.AsyncIterator
    init(_ iterator: RequestBody.AsyncIterator) { self.iterator = iterator }
    struct Iterator: AsyncIteratorProtocol {
      let box: UnsafeIterator
      mutating func next() async throws -> ByteBuffer? { try await box.iterator.next() }
    }
    func makeAsyncIterator() -> Iterator { Iterator(box: self) }
  }

  private enum Body {
    case stream
    case bytes([UInt8])
    case rest([UInt8], UnsafeIterator)
  }

  /// A body of known and moderate length whole, so that it can be sent once more; else as it comes.
  private func body(_ request: Request) async throws -> Body {
    guard request.headers[.transferEncoding] == nil,
      let length = Int(request.headers[.contentLength] ?? "0"), (0...1 << 20).contains(length)
    else { return .stream }
    guard length > 0 else { return .bytes([]) }
    var bytes: [UInt8] = []
    var iterator = request.body.makeAsyncIterator()
    while let chunk = try await iterator.next() {
      bytes.append(contentsOf: chunk.readableBytesView)
    }
    return .bytes(bytes)
  }

  private static let hopHeaders: Set<String> = [
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "host",
    "content-length", "expect",
  ]

  private static func headers(_ request: Request) -> HTTPHeaders {
    var headers = HTTPHeaders()
    for field in request.headers where !hopHeaders.contains(field.name.canonicalName) {
      headers.add(name: field.name.rawName, value: field.value)
    }
    return headers
  }

  private func upstream(_ request: Request, _ path: String, _ body: Body) -> HTTPClientRequest {
    var result = HTTPClientRequest(url: companion.server.url + path)
    result.method = .RAW(value: request.method.rawValue)
    result.headers = Self.headers(request)
    switch body {
    case .bytes(let bytes):
      if !bytes.isEmpty || request.headers[.contentLength] != nil {
        result.body = .bytes(bytes, length: .known(Int64(bytes.count)))
      }
    case .rest(let bytes, let rest):
      result.body = .stream(
        Chain(first: ByteBuffer(bytes: bytes), rest: rest),
        length: Self.length(request)
      )
    case .stream:
      result.body = .stream(request.body, length: Self.length(request))
    }
    return result
  }

  private static func length(_ request: Request) -> HTTPClientRequest.Body.Length {
    request.headers[.contentLength].flatMap { Int64($0) }.map { .known($0) } ?? .unknown
  }

  /// Some bytes, and then what else comes.
  private struct Chain: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    let first: ByteBuffer
    let rest: UnsafeIterator
    struct Iterator: AsyncIteratorProtocol {
      var first: ByteBuffer?
      var rest: UnsafeIterator.Iterator
      mutating func next() async throws -> ByteBuffer? {
        if let first = first.take() { return first }
        return try await rest.next()
      }
    }
    func makeAsyncIterator() -> Iterator { Iterator(first: first, rest: rest.makeAsyncIterator()) }
  }

  private static func head(_ response: HTTPClientResponse, _ extra: [(String, String)])
    -> HTTPResponse
  {
    var head = HTTPResponse(
      status: .init(code: Int(response.status.code), reasonPhrase: response.status.reasonPhrase)
    )
    for (name, value) in response.headers {
      let lower = name.lowercased()
      guard !hopHeaders.contains(lower) || lower == "content-length",
        let name = HTTPField.Name(name)
      else {
        continue
      }
      head.headerFields.append(HTTPField(name: name, value: value))
    }
    for (name, value) in extra {
      // A header is one line of visible characters, whatever a reason says.
      let clean = String(
        String.UnicodeScalarView(value.unicodeScalars.filter { (0x20..<0x7F).contains($0.value) })
      )
      if let name = HTTPField.Name(name) { head.headerFields[name] = clean }
    }
    // Who asks too early learns when to come again.
    if response.status == .serviceUnavailable, head.headerFields[.retryAfter] == nil {
      head.headerFields[.retryAfter] = "2"
    }
    return head
  }

  /// The server went away in the middle of an answer: the connection is closed before the answer's end, as the server's was.
  private struct BrokenOff: Error {}

  /// The pieces of an answer.
  private struct Chunks {
    private var iterator: HTTPClientResponse.Body.AsyncIterator
    init(_ body: HTTPClientResponse.Body) { iterator = body.makeAsyncIterator() }

    mutating func next() async throws -> ByteBuffer? {
      do {
        return try await iterator.next()
      } catch {
        // The HTTP server takes a parser's error for one of the client's, and would answer a second time.
        if Task.isCancelled { throw CancellationError() }
        throw BrokenOff()
      }
    }
  }

  private func forward(
    _ request: Request,
    _ path: String,
    _ body: Body,
    extra: [(String, String)],
    exchange: Exchange?,
    _ box: WriterBox
  ) async throws {
    let response: HTTPClientResponse
    do {
      var isRepeatable = false
      if case .bytes = body { isRepeatable = true }
      response = try await companion.server.execute(
        upstream(request, path, body),
        isRepeatable: isRepeatable
      )
    } catch let problem as LlamaServer.Unreachable {
      companion.counters.change { $0.refused += 1 }
      return try await send(Self.unavailable("\(problem)"), box)
    }
    if var exchange {
      exchange.status = Int(response.status.code)
      companion.log.add(exchange)
    }
    var writer = try await box.take().writeHead(Self.head(response, extra))
    if request.method != .head {
      var chunks = Chunks(response.body)
      while let chunk = try await chunks.next() { try await writer.write(chunk) }
    }
    try await writer.finish(nil)
  }

  // ---------------------------------------------------------------- with a prefix

  private func help(
    _ request: Request,
    _ path: String,
    _ body: [UInt8],
    _ kind: RequestKind,
    _ passage: Companion.Passage,
    _ exchange: Exchange,
    _ box: WriterBox
  ) async throws {
    var style = RequestKind.EndpointStyle.openAI
    if case .helped(_, let known) = kind { style = known }
    let answered = Flag()
    var reader: AnswerReader?
    var status = 0
    do {
      let start = Task { await companion.started(passage) { answered.isSet } }
      let response: HTTPClientResponse
      do {
        response = try await companion.server.execute(upstream(request, path, .bytes(body)))
        answered.set()
      } catch {
        answered.set()
        await start.value
        throw error
      }
      await start.value
      status = Int(response.status.code)
      let isStream =
        response.headers.first(name: "content-type")?.hasPrefix("text/event-stream") == true
      reader = AnswerReader(style: style, isStream: isStream)
      reader?.aheadTokenCount = exchange.aheadTokenCount
      reader?.aheadMilliseconds = exchange.aheadMilliseconds
      var head = Self.head(response, [("x-kvstore-prefix", exchange.header)])
      // The figures in it may get longer.
      if exchange.aheadTokenCount > 0 { head.headerFields[.contentLength] = nil }
      var writer = try await box.take().writeHead(head)
      var chunks = Chunks(response.body)
      while let chunk = try await chunks.next() {
        if exchange.aheadTokenCount > 0 {
          let bytes = reader!.pass(Array(chunk.readableBytesView))
          if !bytes.isEmpty { try await writer.write(ByteBuffer(bytes: bytes)) }
        } else {
          try await writer.write(chunk)
          _ = reader!.pass(Array(chunk.readableBytesView))
        }
      }
      let rest = reader!.finish()
      if !rest.isEmpty { try await writer.write(ByteBuffer(bytes: rest)) }
      companion.finish(passage, reader, status: status, wasCancelled: false)
      try await writer.finish(nil)
    } catch let problem as LlamaServer.Unreachable {
      companion.counters.change { $0.refused += 1 }
      companion.finish(passage, nil, status: 503, wasCancelled: false)
      try await send(Self.unavailable("\(problem)"), box)
    } catch {
      companion.finish(passage, reader, status: status, wasCancelled: Task.isCancelled)
      throw error
    }
  }

  // ---------------------------------------------------------------- own pages

  struct Page: Sendable {
    var status = HTTPResponse.Status.ok
    var kind = "application/json"
    var text: String
    var headers: [(String, String)] = []
  }

  static func unavailable(_ why: String) -> Page {
    Page(
      status: .serviceUnavailable,
      text:
        "{\"error\":{\"code\":503,\"message\":\(JSON.quoted("llama-server is not there: \(why)")),\"type\":\"unavailable_error\"}}",
      headers: [("retry-after", "2")]
    )
  }

  private func send(_ page: Page, _ box: WriterBox) async throws {
    var head = HTTPResponse(status: page.status)
    head.headerFields[.contentType] = page.kind
    head.headerFields[.contentLength] = String(page.text.utf8.count)
    head.headerFields[.cacheControl] = "no-store"
    for (name, value) in page.headers {
      if let name = HTTPField.Name(name) { head.headerFields[name] = value }
    }
    try await box.take().write(
      response: head,
      body: ResponseBody(byteBuffer: ByteBuffer(string: page.text))
    )
  }

  private func ownPage(_ request: Request, _ path: String) async throws -> Page? {
    guard request.method == .get || path == "/kvstore/warm" else { return nil }
    switch path {
    case "/health": return await companion.healthPage()
    case "/metrics": return await companion.metricsPage(try await upstreamMetrics(request))
    case "/kvstore": return Page(kind: "text/html; charset=utf-8", text: statusPage)
    default:
      guard companion.mayLook(Self.headers(request)) else {
        return Page(
          status: .unauthorized,
          text:
            "{\"error\":{\"code\":401,\"message\":\"the companion's API key is needed\",\"type\":\"authentication_error\"}}"
        )
      }
      return await companion.page(path)
        ?? Page(
          status: .notFound,
          text:
            "{\"error\":{\"code\":404,\"message\":\"no such page\",\"type\":\"not_found_error\"}}"
        )
    }
  }

  /// The server's own, which come first where it has them.
  private func upstreamMetrics(_ request: Request) async throws -> String {
    var question = HTTPClientRequest(url: companion.server.url + "/metrics")
    question.headers = Self.headers(request)
    guard let response = try? await companion.server.execute(question), response.status == .ok,
      let body = try? await response.body.collect(upTo: 1 << 20)
    else { return "" }
    return String(buffer: body)
  }
}

/// Set once.
private final class Flag: Sendable {
  private let value = Mutex(false)
  var isSet: Bool { value.withLock { $0 } }
  func set() { value.withLock { $0 = true } }
}
