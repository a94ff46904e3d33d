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
      let document = PinsDocument(pins: try store.inspector.pins().map(PinDocument.init))
      try options.show(document, Self.lines(document.pins))
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
        document.endsAt.map(agoText) ?? "–", document.lastBlockKey ?? "forgotten",
      ])
    }
    return table.lines()
  }
}

/// The JSON of `inspect pins`.
struct PinsDocument: CommandDocument {
  static let schema = "inspect-pins"

  var pins: [PinDocument]
}

/// A pin in the JSON of `inspect pins`.
struct PinDocument: Encodable {
  var pin: UInt64
  var namespace: UInt32
  /// Where the prefix ends.
  var run: UInt64
  var position: UInt32
  /// Nil when the block was forgotten since.
  var lastBlockKey: String?
  var blockCount: Int
  /// Exactly then it still holds.
  var endsAt: Moment?

  init(_ pin: StoreInspector.Pin) {
    self.pin = pin.id
    namespace = pin.namespace.rawValue
    run = pin.end.run.rawValue
    position = pin.end.position
    lastBlockKey = pin.blockKey?.hexadecimal
    blockCount = pin.blockCount
    endsAt = Moment(nanoseconds: pin.endNanoseconds)
  }
}
