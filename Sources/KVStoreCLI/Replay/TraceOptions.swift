import ArgumentParser
import KVSimulation

/// How a trace is read.
struct TraceOptions: ParsableArguments {
  @Option(help: "Tokens of a block, where the trace does not say (Mooncake: 512).")
  var blockSize = 512

  @Flag(help: "Leave partial blocks out, as an engine does that never stores them.")
  var fullBlocksOnly = false

  @Flag(help: "Go on after bad lines, and count them.")
  var skipBad = false

  func validate() throws {
    guard (1...1 << 24).contains(blockSize) else {
      throw ValidationError("--block-size must be 1 to 16777216.")
    }
  }

  func replay(_ file: String) -> TraceReplay {
    var replay = TraceReplay(file: file)
    replay.tokensPerBlock = blockSize
    replay.isFullBlocksOnly = fullBlocksOnly
    replay.skipsBadLines = skipBad
    return replay
  }
}

/// `--policy`.
enum PolicyArgument: String, ExpressibleByArgument, CaseIterable {
  case lru, density, fifo, lfu, lena, opt

  static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }

  func policy(_ order: ReferenceCache.TouchOrder) -> TraceReplay.Policy {
    switch self {
    case .lru: order == .tail ? .lru : .reference(.lru, .head)
    case .density: .density
    case .fifo: .reference(.fifo, order)
    case .lfu: .reference(.lfu, order)
    case .lena: .reference(.lena, order)
    case .opt: .reference(.opt, order)
    }
  }
}

extension ReferenceCache.TouchOrder: ExpressibleByArgument {}

/// `--capacity-blocks`: a number, or `unlimited`.
struct CapacityArgument: ExpressibleByArgument, CustomStringConvertible {
  /// nil = unlimited.
  let blockCount: Int?

  init(blockCount: Int?) { self.blockCount = blockCount }

  init?(argument: String) {
    if ["unlimited", "inf"].contains(argument) {
      blockCount = nil
    } else {
      guard let count = Int(argument), (1...1 << 31 - 1).contains(count) else { return nil }
      blockCount = count
    }
  }

  var description: String { blockCount.map { "\($0)" } ?? "unlimited" }
  var defaultValueDescription: String { description }
}
