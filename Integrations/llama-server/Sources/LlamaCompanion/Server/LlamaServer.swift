import AsyncHTTPClient
import NIOCore
import NIOHTTP1
import Synchronization

/// The server that we stand beside, as an HTTP client sees it.
struct LlamaServer: Sendable {
  let client: HTTPClient
  /// Without a slash at its end.
  let url: String
  /// For what we ask on our own; what a caller asks is asked with the caller's key.
  let apiKey: String?
  let outstanding = Outstanding()

  /// Requests that have no answer yet, by number.
  final class Outstanding: Sendable {
    private struct State: Sendable {
      var last: UInt64 = 0
      var waiting: Set<UInt64> = []
    }

    private let state = Mutex(State())
    /// The one that waits for longest.
    var oldest: UInt64? { state.withLock { $0.waiting.min() } }

    func begin() -> UInt64 {
      state.withLock { state in
        state.last += 1
        state.waiting.insert(state.last)
        return state.last
      }
    }

    func end(_ number: UInt64) { state.withLock { _ = $0.waiting.remove(number) } }
  }

  /// The server is not there, or went away before it answered.
  struct Unreachable: Error, CustomStringConvertible {
    var cause: any Error
    var description: String { "\(cause)" }
  }

  /// An answer that is not 200.
  struct Refusal: Error, CustomStringConvertible {
    var status: Int
    var body: String
    var description: String { "\(status) \(body.prefix(300))" }
  }

  func get(_ path: String, headers: HTTPHeaders? = nil) async throws -> JSON {
    try await call(.GET, path, nil, headers: headers)
  }

  /// What the server says of itself, but for whether it sleeps: awake again, it is the same one.
  func properties() async throws -> JSON {
    let answer = try await get("/props")
    let mark = Array("\"is_sleeping\":true".utf8)
    var bytes = Array(answer.raw)
    guard bytes.count > mark.count,
      let at = (0...bytes.count - mark.count).first(where: {
        bytes[$0] == mark[0] && bytes[$0..<$0 + mark.count].elementsEqual(mark)
      })
    else { return answer }
    bytes.replaceSubrange(at..<at + mark.count, with: "\"is_sleeping\":false".utf8)
    return JSON(bytes) ?? answer
  }

  func post(_ path: String, _ body: String, headers: HTTPHeaders? = nil) async throws -> JSON {
    try await call(.POST, path, Array(body.utf8), headers: headers)
  }

  func post(_ path: String, _ body: [UInt8], headers: HTTPHeaders? = nil) async throws -> JSON {
    try await call(.POST, path, body, headers: headers)
  }

  private func call(
    _ method: HTTPMethod,
    _ path: String,
    _ body: [UInt8]?,
    headers: HTTPHeaders?
  ) async throws -> JSON {
    var request = HTTPClientRequest(url: url + path)
    request.method = method
    if let headers {
      request.headers = headers
    } else if let apiKey {
      request.headers.add(name: "authorization", value: "Bearer \(apiKey)")
    }
    if let body {
      request.headers.replaceOrAdd(name: "content-type", value: "application/json")
      request.body = .bytes(body, length: .known(Int64(body.count)))
    }
    let response = try await execute(request)
    var bytes: [UInt8] = []
    do {
      for try await chunk in response.body { bytes.append(contentsOf: chunk.readableBytesView) }
    } catch {
      if Task.isCancelled { throw CancellationError() }
      throw Unreachable(cause: error)
    }
    guard response.status == .ok else {
      throw Refusal(status: Int(response.status.code), body: String(decoding: bytes, as: UTF8.self))
    }
    guard let json = JSON(bytes) else { throw Refusal(status: 200, body: "no JSON") }
    return json
  }

  /// The response's head; its body follows as it comes.
  ///
  /// The server closes a connection that was idle for five seconds, or after a hundred requests: a request that met that is sent again.
  ///
  /// - Parameters:
  ///   - request: what is asked.
  ///   - isRepeatable: false where the body comes as a stream, which there is only once.
  func execute(
    _ request: HTTPClientRequest,
    isRepeatable: Bool = true
  ) async throws -> HTTPClientResponse {
    let number = outstanding.begin()
    defer { outstanding.end(number) }
    for attempt in 0... {
      do {
        return try await client.execute(request, deadline: .distantFuture)
      } catch {
        if Task.isCancelled || error is CancellationError { throw CancellationError() }
        let isStale =
          (error as? HTTPClientError) == .remoteConnectionClosed || error is IOError
          || error is ChannelError
        // Several may have been closed at one time; that a server is gone is told by a connection that it refuses.
        guard isStale, isRepeatable, attempt < 4 else { throw Unreachable(cause: error) }
      }
    }
    throw CancellationError()
  }
}
