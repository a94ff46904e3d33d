/// Where a server is and how to speak to it.
package struct RedisConfiguration: Sendable {
  /// A server's name or address, and its port.
  package struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    package let host: String
    package let port: UInt16

    package init(host: String, port: UInt16) {
      self.host = host
      self.port = port
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
  }

  /// How a connection is encrypted.
  package struct TLS: Sendable {
    /// The certificates that a server's has to come from, in PEM; nil for the system's.
    package var certificateAuthorityFile: String?
    /// This client's certificate and key, in PEM, where the server asks for one (redis-server does by default); the key may be in the certificate's file.
    package var certificateFile: String?
    package var keyFile: String?
    /// Whether the server has to prove that it is the one that the URL names.
    ///
    /// Without, whoever is on the way reads and changes everything.
    package var verifiesServer = true

    package init() {}
  }

  /// One server, or some nodes of a cluster.
  package var endpoints: [Endpoint]
  /// nil: everybody on the way can read along.
  package var tls: TLS?
  package var credentials: RedisCredentials?
  /// Number of the database; a cluster has 0 only.
  package var database = 0
  /// Idle connections that are kept to each node; as many calls at once share them without connecting anew.
  package var connectionCount = 4
  /// Within which a connection has to be made, its greeting answered.
  package var connectMilliseconds: UInt64 = 250

  /// Takes `redis://[user@]host[:port][,host[:port]…][/database]`, `rediss://` for TLS.
  ///
  /// - Throws: what is wrong with it, without repeating it: it may hold a password.
  package init(url: String) throws(InvalidURL) {
    guard let colon = url.firstIndex(of: ":"), url[colon...].hasPrefix("://") else {
      throw .init("it has no scheme: redis:// or rediss://")
    }
    switch url[..<colon] {
    case "redis": tls = nil
    case "rediss": tls = TLS()
    default: throw .init("its scheme is neither redis nor rediss")
    }
    guard url.utf8.count <= 4096, url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
      throw .init("it is too long or has characters that do not belong in a URL")
    }
    var rest = url[colon...].dropFirst(3)
    if rest.contains("?") || rest.contains("#") { throw .init("it has options, and takes none") }
    if let slash = rest.firstIndex(of: "/") {
      let path = rest[rest.index(after: slash)...]
      rest = rest[..<slash]
      if !path.isEmpty {
        guard let number = Int(path), (0...65_535).contains(number), path.first != "+" else {
          throw .init("its path is no number of a database")
        }
        database = number
      }
    }
    if let at = rest.lastIndex(of: "@") {
      let user = rest[..<at]
      if user.contains(":") {
        throw .init("it has a password, which belongs in a credentials file")
      }
      guard !user.isEmpty else { throw .init("its user is empty") }
      userName = String(user)
      rest = rest[rest.index(after: at)...]
    }
    endpoints = []
    for part in rest.split(separator: ",", omittingEmptySubsequences: false) {
      endpoints.append(try Self.endpoint(part))
    }
    guard endpoints.count <= 64 else { throw .init("it has more than 64 hosts") }
  }

  /// What each connection says first, as it is sent, a command each (AUTH, SELECT); never printed.
  package var greetings: [[UInt8]] {
    var greetings: [[UInt8]] = []
    if let credentials {
      let user = credentials.user ?? userName
      greetings.append(
        Request.encoded(["AUTH"] + (user.map { [$0] } ?? []) + [credentials.password])
      )
    }
    if database != 0 { greetings.append(Request.encoded(["SELECT", String(database)])) }
    return greetings
  }

  /// Whether all hosts are this machine itself; waits for name servers.
  package var isOnThisMachine: Bool {
    endpoints.allSatisfy { endpoint in
      let addresses = SocketAddress.resolve(endpoint.host, port: endpoint.port, isNumeric: false)
      return !addresses.isEmpty && addresses.allSatisfy(\.isLoopback)
    }
  }

  /// The user that the URL names; the one of the credentials, if they name one, wins.
  package private(set) var userName: String?

  private static func endpoint(_ text: Substring) throws(InvalidURL) -> Endpoint {
    var host = text
    var port: UInt16 = 6379
    var end = text.startIndex
    if text.first == "[" {
      guard let close = text.firstIndex(of: "]") else { throw .init("an address has no end: ]") }
      host = text[text.index(after: text.startIndex)..<close]
      end = text.index(after: close)
    } else {
      end = text.firstIndex(of: ":") ?? text.endIndex
      host = text[..<end]
    }
    if end != text.endIndex {
      let digits = text[text.index(after: end)...]
      guard text[end] == ":", let number = UInt16(digits), number > 0, digits.first != "+" else {
        throw .init("a port is none")
      }
      port = number
    }
    guard !host.isEmpty, host.utf8.count <= 255 else { throw .init("it has no host") }
    return Endpoint(host: String(host), port: port)
  }

  /// Why a URL is none of these.
  package struct InvalidURL: Error, Equatable {
    package let reason: String
    init(_ reason: String) { self.reason = reason }
  }
}
