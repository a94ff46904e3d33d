import HTTPTypes
import HummingbirdCore
import NIOCore
import NIOHTTP1
import Synchronization

/// Prompts that are made ready before they are asked: `POST /kvstore/warm` and `/kvstore/prefetch`, with the body of the request to come.
extension Front {
  /// Nil for another path.
  func warming(_ request: Request, _ path: String) async throws -> Page? {
    let plain = path.prefix { $0 != "?" }
    guard request.method == .post, plain == "/kvstore/warm" || plain == "/kvstore/prefetch" else {
      return nil
    }
    var bytes: [UInt8] = []
    var iterator = request.body.makeAsyncIterator()
    while let chunk = try await iterator.next() {
      bytes.append(contentsOf: chunk.readableBytesView)
      guard bytes.count <= companion.options.bodyByteCountMax else {
        return Self.problem(.contentTooLarge, "the body is longer than is looked at")
      }
    }
    let body = JSON(bytes)
    let kind = RequestKind(path: Self.interface(path, body), body: body)
    let headers = Self.headers(request)
    guard case .helped(let source, let style) = kind else {
      var why = ""
      if case .passed(let reason, _) = kind { why = reason }
      return Self.problem(.unprocessableContent, why)
    }
    do {
      if plain == "/kvstore/prefetch" {
        let found = try await companion.prefetch(source, headers)
        return Page(text: "{\"tokens\":\(found.tokens),\"stored\":\(found.stored)}")
      }
      return try await warm(body, kind, style, headers, path: String(plain))
    } catch let refusal as LlamaServer.Refusal {
      return Self.problem(.init(code: refusal.status == 200 ? 502 : refusal.status), "\(refusal)")
    } catch let problem as LlamaServer.Unreachable {
      return Self.unavailable("\(problem)")
    } catch let problem as NotHelped {
      return Self.problem(.unprocessableContent, "\(problem)")
    }
  }

  /// Which interface the request is for: `?for=/v1/messages`, else by its members.
  private static func interface(_ path: String, _ body: JSON?) -> String {
    if let query = path.split(separator: "?", maxSplits: 1).dropFirst().first {
      for part in query.split(separator: "&") where part.hasPrefix("for=") {
        return part.dropFirst(4).split(separator: "%2F", omittingEmptySubsequences: false)
          .joined(separator: "/")
      }
    }
    if body?["messages"] != nil {
      return body?["system"] == nil ? "/v1/chat/completions" : "/v1/messages"
    }
    return body?["input"] == nil ? "/completion" : "/v1/responses"
  }

  private func warm(
    _ body: JSON?,
    _ kind: RequestKind,
    _ style: RequestKind.EndpointStyle,
    _ headers: HTTPHeaders,
    path: String
  ) async throws -> Page {
    var exchange = Exchange()
    exchange.id = companion.log.nextID()
    exchange.timeMilliseconds = wallMilliseconds()
    exchange.path = path
    companion.counters.change { $0.requests += 1 }
    let decision = try await companion.decide(
      body: body,
      kind: kind,
      headers: headers,
      exchange: exchange,
      needsTokens: true
    )
    switch decision {
    case .gone(let why): return Self.unavailable(why)
    case .pass(let exchange):
      return Self.problem(.unprocessableContent, exchange.passed ?? "")
    case .help(let passage, _, let exchange):
      let answered = Flag()
      let start = Task { await companion.started(passage) { answered.isSet } }
      do {
        let answer = try await companion.compute(passage, slot: exchange.slot ?? 0, headers)
        answered.set()
        await start.value
        var reader = AnswerReader(style: .openAI, isStream: false)
        _ = reader.pass(Array(answer.raw))
        _ = reader.finish()
        companion.finish(passage, reader, status: 200, wasCancelled: false)
        let used = max(exchange.memoryTokenCount, exchange.restoredTokenCount)
        let computed = exchange.aheadTokenCount + (reader.computedTokenCount ?? 0)
        return Page(
          text: """
            {"tokens":\(exchange.tokenCount),"reused":\(used),"tier":"\(exchange.tier)","computed":\(computed)}
            """
        )
      } catch {
        answered.set()
        await start.value
        companion.finish(passage, nil, status: 500, wasCancelled: error is CancellationError)
        throw error
      }
    }
  }

  private static func problem(_ status: HTTPResponse.Status, _ text: String) -> Page {
    Page(
      status: status,
      text:
        "{\"error\":{\"code\":\(status.code),\"message\":\(JSON.quoted(text)),\"type\":\"invalid_request_error\"}}"
    )
  }
}
