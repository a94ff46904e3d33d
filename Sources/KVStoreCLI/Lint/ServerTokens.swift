import FoundationEssentials
import Glibc
import KVRequests

// Unsafe: sockets and addresses of the C library, within one call each.

/// Token ids of a request, as a llama-server makes them: its template, its tokenizer.
final class ServerTokens {
  private let server: PlainHTTP
  /// Of the newest requests, by their JSON: each is asked for twice, as the later and as the earlier one.
  private var known: [(json: [UInt8], tokens: [UInt32])] = []
  private static let knownCountMax = 64

  init(_ url: String) throws {
    server = try PlainHTTP(url)
    // Says at once when nobody listens.
    guard try server.post("/tokenize", Array("{\"content\":\"a\"}".utf8)) != nil else {
      throw CommandFailure("\(url) has no /tokenize: --server takes the address of a llama-server")
    }
  }

  /// The tokens of a request; nil for an interface whose template a llama-server does not know.
  func tokens(_ request: PromptRequest) throws -> [UInt32]? {
    let json = request.json
    if let found = known.first(where: { $0.json == json }) { return found.tokens }
    let prompt: String
    switch request.format {
    case .openAIChat:
      // What its template refuses it would not have computed either.
      guard let answer = try server.post("/apply-template", json),
        let text = Self.decoded(PromptText.self, answer)
      else { return nil }
      prompt = text.prompt
    case .completion:
      guard let text = Self.decoded(PromptText.self, json) else { return nil }
      prompt = text.prompt
    case .openAIResponses, .anthropicMessages, .other: return nil
    }
    let body = try jsonText(TokenizeRequest(content: prompt), isPretty: false)
    guard let answer = try server.post("/tokenize", Array(body.utf8)),
      let tokens = Self.decoded(TokenizeAnswer.self, answer)?.tokens
    else { return nil }
    if known.count >= Self.knownCountMax { known.removeFirst() }
    known.append((json, tokens))
    return tokens
  }

  /// How many tokens a text is by itself.
  func count(_ text: [UInt8]) throws -> Int {
    let content = String(decoding: text, as: UTF8.self)
    let request = TokenizeRequest(content: content, add_special: false)
    let answer = try server.post(
      "/tokenize",
      Array(try jsonText(request, isPretty: false).utf8)
    )
    return answer.flatMap { Self.decoded(TokenizeAnswer.self, $0) }?.tokens.count ?? 0
  }

  private struct PromptText: Decodable { var prompt: String }
  private struct TokenizeRequest: Encodable {
    var content: String
    var add_special = true
    var parse_special = true
  }
  private struct TokenizeAnswer: Decodable { var tokens: [UInt32] }

  private static func decoded<Value: Decodable>(_ type: Value.Type, _ bytes: [UInt8]) -> Value? {
    try? JSONDecoder().decode(type, from: Data(bytes))
  }
}

/// HTTP without encryption, a connection for each request: enough for a server beside us, and no library more.
struct PlainHTTP {
  private let host: String
  private let port: String
  private let path: String
  private static let timeoutSeconds = 60
  private static let answerByteCountMax = 256 << 20

  init(_ url: String) throws {
    guard let parts = URLComponents(string: url), parts.scheme == "http", let host = parts.host,
      !host.isEmpty
    else {
      throw CommandFailure("--server takes an address such as http://127.0.0.1:8080, not \(url)")
    }
    self.host = host
    port = String(parts.port ?? 80)
    path = parts.path.hasSuffix("/") ? String(parts.path.dropLast()) : parts.path
  }

  /// As the server itself and its companion take it; no line break goes into the head.
  private var authorization: String {
    guard let key = ProcessInfo.processInfo.environment["LLAMA_API_KEY"], !key.isEmpty,
      key.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
    else { return "" }
    return "Authorization: Bearer \(key)\r\n"
  }

  /// The body of the answer, nil when the server refuses what was asked; throws in words why it cannot be asked.
  func post(_ target: String, _ body: [UInt8]) throws -> [UInt8]? {
    let descriptor = try connected()
    defer { close(descriptor) }
    let head =
      "POST \(path)\(target) HTTP/1.1\r\nHost: \(host):\(port)\r\nContent-Type: application/json\r\n"
      + "Content-Length: \(body.count)\r\nConnection: close\r\n\(authorization)\r\n"
    try send(descriptor, Array(head.utf8) + body)
    let answer = try receive(descriptor)
    guard let end = answer.firstRange(of: Array("\r\n\r\n".utf8)) else {
      throw CommandFailure("\(host):\(port) does not speak HTTP")
    }
    let lines = String(decoding: answer[..<end.lowerBound], as: UTF8.self)
      .split(separator: "\r\n", omittingEmptySubsequences: false)
    let content = Array(answer[end.upperBound...])
    let status = lines[0].split(separator: " ").dropFirst().first ?? ""
    // 401 and 403: it wants a key, whatever is asked.
    guard status != "401", status != "403" else {
      throw CommandFailure(
        "http://\(host):\(port)\(path)\(target) answers with status \(status): it takes the key in "
          + "$LLAMA_API_KEY"
      )
    }
    guard status == "200" else { return nil }
    let isChunked = lines.contains {
      $0.lowercased().hasPrefix("transfer-encoding:") && $0.lowercased().contains("chunked")
    }
    return isChunked ? try unchunked(content) : content
  }

  private func connected() throws -> Int32 {
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard unsafe getaddrinfo(host, port, &hints, &list) == 0 else {
      throw CommandFailure("there is no host \(host)")
    }
    defer { unsafe freeaddrinfo(list) }
    var reason = ECONNREFUSED
    var address = unsafe list
    while let one = unsafe address {
      let descriptor = unsafe socket(
        one.pointee.ai_family,
        one.pointee.ai_socktype,
        one.pointee.ai_protocol
      )
      if descriptor >= 0 {
        var limit = timeval(tv_sec: Self.timeoutSeconds, tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
        if unsafe connect(descriptor, one.pointee.ai_addr, one.pointee.ai_addrlen) == 0 {
          return descriptor
        }
        reason = errno
        close(descriptor)
      }
      unsafe address = one.pointee.ai_next
    }
    throw CommandFailure("nobody answers at http://\(host):\(port): \(errorText(reason))")
  }

  private func send(_ descriptor: Int32, _ bytes: [UInt8]) throws {
    var at = 0
    while at < bytes.count {
      let count = unsafe bytes[at...].withUnsafeBytes {
        unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        throw CommandFailure("http://\(host):\(port) went away: \(errorText(errno))")
      }
      at += count
    }
  }

  private func receive(_ descriptor: Int32) throws -> [UInt8] {
    var answer: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = unsafe buffer.withUnsafeMutableBytes {
        unsafe recv(descriptor, $0.baseAddress, $0.count, 0)
      }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else {
        throw CommandFailure("http://\(host):\(port) does not answer: \(errorText(errno))")
      }
      if count == 0 { return answer }
      answer += buffer[0..<count]
      guard answer.count <= Self.answerByteCountMax else {
        throw CommandFailure("http://\(host):\(port) answers with more than 256 MiB")
      }
    }
  }

  private func unchunked(_ content: [UInt8]) throws -> [UInt8] {
    var result: [UInt8] = []
    var at = 0
    while let line = content[at...].firstRange(of: [13, 10]) {
      let digits = content[at..<line.lowerBound].prefix { $0 != UInt8(ascii: ";") }
      guard let size = Int(String(decoding: digits, as: UTF8.self), radix: 16), size >= 0,
        size <= content.count - line.upperBound
      else { break }
      if size == 0 { return result }
      result += content[line.upperBound..<line.upperBound + size]
      at = min(line.upperBound + size + 2, content.count)
    }
    throw CommandFailure("http://\(host):\(port) answers with a body that is cut off")
  }
}
