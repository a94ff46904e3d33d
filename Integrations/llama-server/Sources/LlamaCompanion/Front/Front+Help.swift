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
  func help(
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
      await companion.complete(passage)
      let exchange = passage.state.withLock { $0.exchange }
      status = Int(response.status.code)
      let isStream =
        response.headers.first(name: "content-type")?.hasPrefix("text/event-stream") == true
      reader = AnswerReader(style: style, isStream: isStream)
      reader?.kept = exchange.kept
      reader?.aheadTokenCount = exchange.aheadTokenCount
      reader?.aheadMilliseconds = exchange.aheadMilliseconds
      var head = Self.head(response, [("x-kvstore-prefix", exchange.header)])
      // The figures in it may get longer.
      if reader?.corrects == true { head.headerFields[.contentLength] = nil }
      // Whoever has read the last of an answer may ask again at once.
      if !isStream { await companion.answering(passage) }
      var writer = try await box.take().writeHead(head)
      var chunks = Chunks(response.body)
      while let chunk = try await chunks.next() {
        if isStream, AnswerReader.isLast(chunk.readableBytesView) {
          await companion.answering(passage)
        }
        if reader!.corrects {
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
}

/// Set once.
final class Flag: Sendable {
  private let value = Mutex(false)
  var isSet: Bool { value.withLock { $0 } }
  func set() { value.withLock { $0 = true } }
}
