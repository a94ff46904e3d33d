import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore pin`: keeps a stored prefix until a time.
struct PinCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pin",
    abstract: "Keep the stored front of a prompt: nothing evicts it until the pin ends.",
    discussion: """
      Works at rest and beside a live server. A pin is durable; it ends by time or by `kvstore unpin`. Lives that are \
      counted from the last use do not end before it; an absolute end, forget and purge are stronger.

      EXAMPLES
        kvstore pin STORE system-prompt.json --duration 7d
        kvstore inspect pins STORE
        kvstore unpin STORE 3
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(
    help: "A file with the prompt's token ids (1 2 3 or [1, 2, 3]); - is the standard input.",
    completion: .file()
  )
  var prompt: String

  @OptionGroup var chosen: OneNamespaceOption

  @Option(
    name: .customLong("duration"),
    help: ArgumentHelp("How long it holds: 90s, 15m, 3h, 2d; at most 90d.", valueName: "time")
  )
  var duration: TimeSpan

  @Flag(help: "Print one JSON document.")
  var json = false

  func validate() throws {
    guard duration.seconds > 0, duration.seconds <= Namespace.pinNanosecondsMax / 1_000_000_000
    else { throw ValidationError("--duration must be between 1s and 90d.") }
  }

  func run() throws {
    try withStore(at: store, readOnly: false) { opened in
      let (namespace, identity) = try chosen.selected(in: opened)
      let words = try PromptInput(path: prompt, identity: identity).words
      guard
        let pin = try opened.pin(
          words,
          in: namespace.id,
          nanoseconds: duration.seconds * 1_000_000_000
        )
      else { throw CommandFailure("nothing of the prompt is stored: there is nothing to pin") }
      let blockTokenCount = identity.tokensPerBlock
      let document = PinnedDocument(
        pin: pin.id,
        namespace: namespace.id.rawValue,
        blockCount: pin.blockCount,
        tokenCount: pin.blockCount * blockTokenCount,
        promptBlockCount: words.count / identity.wordsPerBlock,
        endsAt: Moment(
          nanoseconds: SystemClock().realTimeNanoseconds() + duration.seconds * 1_000_000_000
        )
      )
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// The JSON of `pin`.
struct PinnedDocument: CommandDocument {
  static let schema = "pin"

  /// What `unpin` takes.
  var pin: UInt64
  var namespace: UInt32
  /// Leading blocks of the prompt that are stored, and pinned now.
  var blockCount: Int
  var tokenCount: Int
  /// Full blocks of the prompt.
  var promptBlockCount: Int
  var endsAt: Moment?

  /// The document for people.
  var text: String {
    let rest =
      blockCount < promptBlockCount
      ? "; the other \(promptBlockCount - blockCount) of the prompt are not stored" : ""
    let end = endsAt.map(agoText) ?? "–"
    return "pin \(pin): \(counted(blockCount, "block")), \(tokenCount) tokens, ends \(end)\(rest)"
  }
}

/// `kvstore unpin`: ends pins.
struct UnpinCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unpin",
    abstract: "End pins, whichever process made them.",
    discussion:
      "The numbers are those of `kvstore inspect pins`. Works at rest and beside a live server."
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(help: "Numbers of pins.")
  var pins: [UInt64]

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    try withStore(at: store, readOnly: false) { opened in
      var document = UnpinDocument(ended: [], unknown: [])
      for pin in pins {
        if try opened.unpin(pin) {
          document.ended.append(pin)
        } else {
          document.unknown.append(pin)
        }
      }
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// The JSON of `unpin`.
struct UnpinDocument: CommandDocument {
  static let schema = "unpin"

  var ended: [UInt64]
  /// No pins of these numbers hold.
  var unknown: [UInt64]

  /// The document for people.
  var text: String {
    (ended.map { "pin \($0): ended" } + unknown.map { "pin \($0): there is none" })
      .joined(separator: "\n")
  }
}
