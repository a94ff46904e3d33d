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

  func send(_ page: Page, _ box: WriterBox) async throws {
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

  func ownPage(_ request: Request, _ path: String) async throws -> Page? {
    guard request.method == .get else { return nil }
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
  func upstreamMetrics(_ request: Request) async throws -> String {
    var question = HTTPClientRequest(url: companion.server.url + "/metrics")
    question.headers = Self.headers(request)
    guard let response = try? await companion.server.execute(question), response.status == .ok,
      let body = try? await response.body.collect(upTo: 1 << 20)
    else { return "" }
    return String(buffer: body)
  }
}
