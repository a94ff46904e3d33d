import KVSimulation

/// A trace, plain or compressed, from bytes.
enum TraceFuzzer {
  private static let file = MemoryFile("trace")

  static func run(_ bytes: [UInt8]) { file.with(bytes, parse) }

  private static func parse(_ path: String) {
    do {
      let reader = try TraceReader(file: path, tokensPerBlock: 4, skipsBadLines: true)
      var request = TraceRequest()
      var lineCount = 0
      while lineCount < 1000, try reader.next(into: &request) { lineCount += 1 }
      FuzzTarget.keep(lineCount ^ reader.badLineCount)
    } catch {
      // Refused.
    }
  }
}
