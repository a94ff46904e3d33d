import ArgumentParser
import KVCore
import KVRedis
import KVRemote

/// `kvstore remote ping`: whether the remote answers, and how fast.
struct RemotePing: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ping",
    abstract: "Ask whether the remote answers, and how long a look-up takes.",
    discussion: """
      Each round trip is a look-up of 64 names that no object has, as a store does it: all nodes of a cluster are asked at once.

      EXAMPLES
        kvstore remote ping redis://cache:6379
        kvstore remote ping redis://cache --count 100 --json
      """
  )

  @OptionGroup var options: RemoteOptions

  @Option(help: "Round trips.")
  var count = 10

  func validate() throws {
    guard (1...100_000).contains(count) else {
      throw ValidationError("--count must be between 1 and 100000.")
    }
  }

  func run() throws {
    try options.withRemote { remote, _ in
      // Their slots lie on all nodes.
      let names = (0..<64).map { RemoteName("kvstore-ping:\($0)") }
      func measured() throws -> UInt64 {
        let start = monotonicNanoseconds()
        _ = try remote.exist(names, deadline: options.deadline)
        return monotonicNanoseconds() - start
      }
      let first = try measured()
      let information = try remote.information(deadline: options.deadline)
      let times = try (0..<count).map { _ in try measured() }.sorted()
      let document = RemotePingDocument(
        version: information.version,
        nodes: information.nodes,
        connectSeconds: Double(first) / 1e9,
        roundTripCount: count,
        medianSeconds: Double(times[count / 2]) / 1e9,
        worstSeconds: Double(times[count - 1]) / 1e9
      )
      try options.show(document, document.lines)
    }
  }
}

/// The JSON of `remote ping`.
struct RemotePingDocument: CommandDocument {
  static let schema = "remote-ping"

  var version: String
  var nodes: [String]
  /// The first look-up, with the connections it needs.
  var connectSeconds: Double
  var roundTripCount: Int
  var medianSeconds: Double
  var worstSeconds: Double

  /// The document for people.
  var lines: [String] {
    func text(_ seconds: Double) -> String { timeText(UInt64(seconds * 1e9)) }
    return fieldLines([
      ("server", printable(version)),
      ("nodes", nodesText(nodes)),
      ("connected in", text(connectSeconds)),
      (
        counted(roundTripCount, "round trip"),
        "median \(text(medianSeconds)), worst \(text(worstSeconds))"
      ),
    ])
  }
}
