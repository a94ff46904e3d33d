import ArgumentParser
import KVCore
import KVFile
import KVRedis
import KVRemote

/// `kvstore remote`: looks after what stores keep outside their machines.
struct RemoteCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "remote",
    abstract: "Look after the objects of a remote tier in Valkey or Redis.",
    discussion: """
      URL is redis://HOST[:PORT][/DATABASE], or rediss:// for TLS; several hosts, with commas between them, are nodes of one \
      cluster. A password never belongs in it: it stands in a file of mode 0600 with the lines user=NAME (may be absent) and \
      password=SECRET.

      EXAMPLES
        kvstore remote ping redis://cache:6379
        kvstore remote stat rediss://cache --credentials /etc/kvstore/remote --ca /etc/kvstore/ca.pem
        kvstore remote purge redis://cache --identity 2f9c1d66a3b0e5f7 --dry-run
      """,
    subcommands: [RemotePing.self, RemoteStat.self, RemoteVerify.self, RemotePurge.self]
  )
}

/// What every subcommand takes.
struct RemoteOptions: ParsableArguments {
  @ArgumentParser.Argument(help: "Where the server or the cluster is: redis:// or rediss://.")
  var url: String

  @Option(help: "File with user=… and password=…, of mode 0600.", completion: .file())
  var credentials: String?

  @Option(
    help: "File with the certificates that the server's has to come from. (default: the system's)",
    completion: .file()
  )
  var ca: String?

  @Option(
    help: "File with this client's certificate, where the server asks for one.",
    completion: .file()
  )
  var certificate: String?

  @Option(help: "File with the certificate's key. (default: in its file)", completion: .file())
  var certificateKey: String?

  @Option(help: "How long an answer may take, such as 5s.")
  var timeout = TimeSpan(seconds: 2)

  @Flag(help: "Print one JSON document.")
  var json = false

  func validate() throws {
    guard (1...3600).contains(timeout.seconds) else {
      throw ValidationError("--timeout must be between 1s and 1h.")
    }
    _ = try settings()
  }

  /// When a call has to have an answer.
  var deadline: UInt64 { KVCore.deadline(after: timeout.seconds * 1_000_000_000) }

  /// What the URL and the options say; a file that is named is not read yet.
  private func settings() throws -> RedisConfiguration {
    var configuration: RedisConfiguration
    do throws(RedisConfiguration.InvalidURL) {
      configuration = try RedisConfiguration(url: url)
    } catch {
      throw ValidationError("the URL is not one of a remote: \(error.reason).")
    }
    if ca != nil || certificate != nil || certificateKey != nil {
      guard configuration.tls != nil else {
        throw ValidationError("certificates are for TLS: the URL has to begin with rediss://.")
      }
    }
    configuration.tls?.certificateAuthorityFile = ca
    configuration.tls?.certificateFile = certificate
    configuration.tls?.keyFile = certificateKey
    configuration.connectMilliseconds = timeout.seconds * 1000
    return configuration
  }

  /// Lends a client; puts its errors into words.
  func withRemote(_ body: (RedisObjects, RedisConfiguration) throws -> Void) throws {
    var configuration = try settings()
    // Of several hosts the first; never a user's name.
    let place = configuration.endpoints.map(\.description).joined(separator: ",")
    if let file = credentials {
      do throws(RedisCredentials.FileProblem) {
        configuration.credentials = try RedisCredentials(file: file)
      } catch { throw CommandFailure("\(file): \(error.text)") }
    }
    do {
      let remote = try RedisObjects(configuration)
      defer { remote.close() }
      try body(remote, configuration)
    } catch let error as RemoteError {
      throw CommandFailure("\(place): \(error.text(timeout: timeout.seconds))")
    }
  }

  /// Prints `document` with --json, else `lines`.
  func show(_ document: some CommandDocument, _ lines: @autoclosure () -> [String]) throws {
    print(json ? try jsonText(document) : lines().joined(separator: "\n"))
  }
}

extension TimeSpan {
  init(seconds: UInt64) { self.seconds = seconds }
}

extension TimeSpan: CustomStringConvertible {
  var description: String { "\(seconds)s" }
}

extension RemoteError {
  /// What it means to somebody at the command line, and what to do.
  func text(timeout: UInt64) -> String {
    switch self {
    case .unreachable(let code):
      "cannot be reached: \(errorText(code)) (is the server up, and are host and port right?)"
    case .timedOut:
      "no answer within \(timeout) s (--timeout; or is it redis:// for rediss://, or the reverse?)"
    case .full: "is full and takes nothing more"
    case .unauthorized:
      "refuses these credentials, or lets their user not do this (--credentials FILE, ACL)"
    case .unavailable:
      "answers and cannot serve: it is loading, failing over, read-only, or its cluster is down"
    case .tooLarge: "takes no object of that size (proto-max-bulk-len)"
    case .refused(let words): "says: \(printable(words))"
    case .protocolViolation(let what):
      "does not speak RESP as expected: \(printable(what)) (a plain URL at a TLS port, or the reverse?)"
    case .insecure(let what): "is not trusted: \(printable(what)) (--ca FILE)"
    case .closed: "the connection was closed"
    }
  }
}

extension RedisCredentials.FileProblem {
  var text: String {
    switch self {
    case .malformed: "has to have the line password=SECRET and may have user=NAME, and nothing else"
    case .file(let error): error.text
    }
  }
}

extension PrivateFileError {
  /// What keeps a file with a secret from being read, and what to do.
  var text: String {
    switch self {
    case .unreadable(let code): "cannot be read: \(errorText(code))"
    case .looseMode(let mode): "others may read it (mode \(String(mode, radix: 8))): chmod 600"
    case .foreignOwner: "belongs to another user"
    case .unsuitable: "is no file of a secret"
    }
  }
}

/// Addresses of nodes for people: the first ones, and how many more there are.
func nodesText(_ nodes: [String]) -> String {
  let shown = nodes.prefix(3).joined(separator: " ")
  return nodes.count > 3 ? "\(shown) and \(nodes.count - 3) more" : shown
}
