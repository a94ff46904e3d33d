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

extension Front {
  /// An iterator that one task hands to another and uses no more.
  final class UnsafeIterator: AsyncSequence, @unchecked Sendable {
    typealias Element = ByteBuffer
    private var iterator: RequestBody.AsyncIterator
    init(_ iterator: RequestBody.AsyncIterator) { self.iterator = iterator }
    struct Iterator: AsyncIteratorProtocol {
      let box: UnsafeIterator
      mutating func next() async throws -> ByteBuffer? { try await box.iterator.next() }
    }
    func makeAsyncIterator() -> Iterator { Iterator(box: self) }
  }

  enum Body {
    case stream
    case bytes([UInt8])
    case rest([UInt8], UnsafeIterator)
  }

  /// A body of known and moderate length whole, so that it can be sent once more; else as it comes.
  func body(_ request: Request) async throws -> Body {
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

  static let hopHeaders: Set<String> = [
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "host",
    "content-length", "expect",
  ]

  static func headers(_ request: Request) -> HTTPHeaders {
    var headers = HTTPHeaders()
    for field in request.headers where !hopHeaders.contains(field.name.canonicalName) {
      headers.add(name: field.name.rawName, value: field.value)
    }
    return headers
  }

  func upstream(_ request: Request, _ path: String, _ body: Body) -> HTTPClientRequest {
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

  static func length(_ request: Request) -> HTTPClientRequest.Body.Length {
    request.headers[.contentLength].flatMap { Int64($0) }.map { .known($0) } ?? .unknown
  }

  /// Some bytes, and then what else comes.
  struct Chain: AsyncSequence, Sendable {
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

  static func head(_ response: HTTPClientResponse, _ extra: [(String, String)])
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
  struct BrokenOff: Error {}

  /// The pieces of an answer.
  struct Chunks {
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

  func forward(
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
}
