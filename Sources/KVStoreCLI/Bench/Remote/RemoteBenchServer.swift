import ArgumentParser
import Glibc
import KVCore
import KVRedis
import KVRemote

/// The server that a bench is about: somebody's, or one that is started for it.
struct RemoteBenchServer {
  var url: String?
  var credentials: String?
  var ca: String?
  var program: String?

  /// A server as the bench uses it.
  final class Running {
    let url: String
    let credentials: String?
    let ca: String?
    /// For people.
    let name: String
    /// Of this machine, with nothing on the way.
    let isOwn: Bool
    private let process: ChildProcess?

    fileprivate init(
      url: String,
      credentials: String?,
      ca: String?,
      name: String,
      process: ChildProcess?
    ) {
      self.url = url
      self.credentials = credentials
      self.ca = ca
      self.name = name
      self.process = process
      isOwn = process != nil
    }

    func configuration(_ url: String? = nil) throws -> RedisConfiguration {
      try RemoteBenchServer.configuration(url ?? self.url, credentials: credentials, ca: ca)
    }

    func objects() throws -> RedisObjects { try RedisObjects(configuration()) }
  }

  /// What URL and options say.
  static func configuration(
    _ url: String,
    credentials: String?,
    ca: String?
  ) throws -> RedisConfiguration {
    var configuration: RedisConfiguration
    do throws(RedisConfiguration.InvalidURL) {
      configuration = try RedisConfiguration(url: url)
    } catch {
      throw ValidationError("the URL is not one of a remote: \(error.reason).")
    }
    if let ca {
      guard configuration.tls != nil else {
        throw ValidationError("certificates are for TLS: the URL has to begin with rediss://.")
      }
      configuration.tls?.certificateAuthorityFile = ca
    }
    if let credentials {
      do throws(RedisCredentials.FileProblem) {
        configuration.credentials = try RedisCredentials(file: credentials)
      } catch {
        throw CommandFailure("\(credentials): \(error.text)")
      }
    }
    configuration.connectMilliseconds = 5000
    return configuration
  }

  /// Asks the server, or starts one in a folder.
  func start(_ folder: String) throws -> Running {
    if let url {
      let configuration = try Self.configuration(url, credentials: credentials, ca: ca)
      let place = configuration.endpoints.map(\.description).joined(separator: ",")
      let name = try "\(Self.version(configuration, place)) at \(place)"
      return Running(url: url, credentials: credentials, ca: ca, name: name, process: nil)
    }
    let program = try self.program ?? Self.installed()
    let port = try Self.freePort()
    // It ends with this process, however that ends: its shell reads until then.
    let script = """
      "$0" --bind 127.0.0.1 --port "$1" --dir "$2" --save '' --appendonly no --daemonize no >/dev/null 2>&1 &
      cat >/dev/null
      kill $!
      wait
      """
    let process = try ChildProcess("/bin/sh", ["-c", script, program, "\(port)", folder])
    let url = "redis://127.0.0.1:\(port)"
    let configuration = try Self.configuration(url, credentials: nil, ca: nil)
    let end = deadline(after: 30_000_000_000)
    while true {
      do {
        let name = try "\(Self.version(configuration, program)), started for it"
        return Running(url: url, credentials: nil, ca: nil, name: name, process: process)
      } catch {
        guard monotonicNanoseconds() < end else {
          throw CommandFailure("\(program) was started and does not answer")
        }
        usleep(20_000)
      }
    }
  }

  private static func version(_ configuration: RedisConfiguration, _ place: String) throws -> String
  {
    do throws(RemoteError) {
      let objects = try RedisObjects(configuration)
      defer { objects.close() }
      return try objects.information(deadline: deadline(after: 5_000_000_000)).version
    } catch {
      throw CommandFailure("\(place): \(error.text(timeout: 5))")
    }
  }

  private static func installed() throws -> String {
    let folders = unsafe getenv("PATH").map { unsafe String(cString: $0) } ?? ""
    for name in ["redis-server", "valkey-server"] {
      for folder in folders.split(separator: ":") {
        let path = "\(folder)/\(name)"
        if unsafe access(path, X_OK) == 0 { return path }
      }
    }
    throw CommandFailure(
      """
      there is no server to measure: give the URL of one, or --server PROGRAM, or install redis-server (Debian: \
      apt install redis-server) or valkey-server
      """
    )
  }

  /// Of which nobody listens now.
  private static func freePort() throws -> UInt16 {
    guard let listener = LoopbackListener() else {
      throw CommandFailure("there is no free port: \(errorText(errno))")
    }
    return listener.port
  }
}

/// A socket that listens on a free port of 127.0.0.1; who connects waits until it is accepted.
final class LoopbackListener: Sendable {
  let number: Int32
  let port: UInt16

  init?() {
    let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { return nil }
    var address = loopbackAddress(port: 0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        unsafe bind(number, pointer, length) == 0 && listen(number, 128) == 0
          && getsockname(number, pointer, &length) == 0
      }
    }
    guard isBound else {
      close(number)
      return nil
    }
    self.number = number
    port = UInt16(bigEndian: address.sin_port)
  }

  deinit { close(number) }
}

/// 127.0.0.1 and a port.
func loopbackAddress(port: UInt16) -> sockaddr_in {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  return address
}
