import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect pins`: the prefixes that stay until a time.
struct InspectPins: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pins",
    abstract: "Show the pins: what nothing evicts, and until when."
  )

  @OptionGroup var options: InspectOptions

  func run() throws {
    try options.withStore { store in
      let documents = try store.inspector.pins().map(PinDocument.init)
      try options.show(documents, Self.lines(documents))
    }
  }

  private static func lines(_ documents: [PinDocument]) -> [String] {
    guard !documents.isEmpty else { return ["no pins"] }
    var table = TextTable([
      ("pin", .right), ("namespace", .right), ("blocks", .right), ("ends", .left),
      ("last block", .left),
    ])
    for document in documents {
      table.append([
        "\(document.pin)", "\(document.namespace)", "\(document.blockCount)",
        momentText(nanoseconds: document.endNanoseconds), document.lastBlockKey ?? "forgotten",
      ])
    }
    return table.lines()
  }
}

/// A pin in the JSON of `inspect pins`.
struct PinDocument: Encodable {
  var pin: UInt64
  var namespace: UInt32
  /// Where the prefix ends.
  var run: UInt64
  var position: UInt32
  /// Absent when the block was forgotten since.
  var lastBlockKey: String?
  var blockCount: Int
  /// Unix time; exactly then it still holds.
  var endNanoseconds: UInt64

  init(_ pin: StoreInspector.Pin) {
    self.pin = pin.id
    namespace = pin.namespace.rawValue
    run = pin.end.run.rawValue
    position = pin.end.position
    lastBlockKey = pin.blockKey?.hexadecimal
    blockCount = pin.blockCount
    endNanoseconds = pin.endNanoseconds
  }
}
