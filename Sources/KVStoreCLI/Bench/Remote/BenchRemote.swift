import ArgumentParser
import KVCore
import KVRedis
import KVRemote

/// `kvstore bench remote`: the remote tier beside what the same server does for a plain loop.
struct BenchRemote: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "remote",
    abstract: "Put, get and look up in Valkey or Redis, beside a plain loop of SET and GET.",
    discussion: """
      Without a URL, a server of this machine is started for it and ended: redis-server or valkey-server, as far as one is \
      installed. With a URL, what is written there is removed again, and ends by itself after ten minutes. Each figure stands \
      beside its limit, in turns within one run. --round-trip-ms puts a relay in between that lets everything come later. \
      Also: what a match costs beside a remote that is dead.

      EXAMPLES
        kvstore bench remote
        kvstore bench remote redis://cache --runs 15 --json
        kvstore bench remote rediss://cache --credentials /etc/kvstore/remote --round-trip-ms 0
      """
  )

  @ArgumentParser.Argument(help: "Where the server is. (default: one that is started here)")
  var url: String?

  @Option(help: "File with user=… and password=…, of mode 0600.", completion: .file())
  var credentials: String?

  @Option(
    help: "File with the certificates that the server's has to come from. (default: the system's)",
    completion: .file()
  )
  var ca: String?

  @Option(
    help: "The server to start. (default: redis-server, else valkey-server)",
    completion: .file()
  )
  var server: String?

  @Option(
    help: ArgumentHelp(
      "Milliseconds of round trip, several with commas between.",
      valueName: "milliseconds"
    )
  )
  var roundTripMs = RoundTrips(milliseconds: [0, 1, 5])

  @OptionGroup var options: BenchOptions

  func validate() throws {
    guard url == nil || server == nil else {
      throw ValidationError("--server is for a bench without a URL.")
    }
    if url == nil, credentials != nil || ca != nil {
      throw ValidationError("--credentials and --ca are for a server that has a URL.")
    }
    if let url { _ = try RemoteBenchServer.configuration(url, credentials: nil, ca: ca) }
  }

  func run() throws {
    try options.measure([
      RemoteWorkload(
        server: RemoteBenchServer(url: url, credentials: credentials, ca: ca, program: server),
        roundTrips: roundTripMs.milliseconds
      )
    ])
  }
}

/// Round trips as "0,1,5".
struct RoundTrips: ExpressibleByArgument, CustomStringConvertible {
  var milliseconds: [Double]

  init(milliseconds: [Double]) { self.milliseconds = milliseconds }

  init?(argument: String) {
    milliseconds = []
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard let value = Double(part), (0...1000).contains(value) else { return nil }
      milliseconds.append(value)
    }
    guard !milliseconds.isEmpty, milliseconds.count <= 16 else { return nil }
  }

  var description: String { milliseconds.map(Self.text).joined(separator: ",") }

  static func text(_ milliseconds: Double) -> String { decimalText(milliseconds, digits: 3) }
}
