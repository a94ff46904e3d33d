import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect block`: one block by its key.
struct InspectBlock: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "block",
    abstract: "Show one block: its tokens, its place, what comes after it."
  )

  @OptionGroup var options: InspectOptions

  @OptionGroup var key: KeyArgument

  @OptionGroup var chosen: NamespaceOption

  func run() throws {
    try options.withStore { store in
      let namespaces = try chosen.selected(in: store)
      let blockKey = try key.found(in: namespaces, of: store)
      let documents = try namespaces.compactMap { namespace in
        try store.inspector.block(namespace.id, blockKey).map {
          BlockDocument($0, namespace: namespace)
        }
      }
      guard !documents.isEmpty else {
        throw CommandFailure("no block has the key \(blockKey.hexadecimal)")
      }
      try options.show(
        BlocksDocument(blocks: documents),
        Array(documents.map(\.lines).joined(separator: [""]))
      )
    }
  }
}

/// The JSON of `inspect block`: several, since two namespaces without a chain in common can have one key.
struct BlocksDocument: CommandDocument {
  static let schema = "inspect-block"

  var blocks: [BlockDocument]
}

/// A block in the JSON of `inspect block`.
struct BlockDocument: Encodable {
  var namespace: UInt32
  var blockKey: String
  var run: UInt64
  var position: UInt32
  var parentRun: UInt64
  var parentPosition: UInt32
  /// Token ids, or the caller's digest as words.
  var words: [UInt32]
  var wordsAreTokens: Bool
  var extra: String
  var payloadByteCount: Int
  var createdAt: Moment?
  /// Nil = never; of an idle life as long as nobody uses the block.
  var expiresAt: Moment?
  /// How long an idle life is after a use; nil where it is none.
  var idleSeconds: Double?
  /// Nil = not pinned.
  var pinEndsAt: Moment?
  var priority: UInt8
  var tier: String
  var isInline: Bool
  var file: UInt32
  var slot: UInt32
  var generation: UInt64
  var childRuns: [UInt64]
  var stamp: UInt64?

  init(_ block: StoreInspector.Block, namespace: StoreInspector.NamespaceSummary) {
    self.namespace = namespace.id.rawValue
    blockKey = block.blockKey.hexadecimal
    run = block.position.run.rawValue
    position = block.position.position
    parentRun = block.parent.run.rawValue
    parentPosition = block.parent.position
    words = block.words
    wordsAreTokens = namespace.identity?.identityMode != .digest
    extra = hexadecimal(block.extra)
    payloadByteCount = block.payloadByteCount
    createdAt = Moment(seconds: block.createdSeconds)
    expiresAt = Moment(nanoseconds: block.expiry.endNanoseconds)
    idleSeconds = secondsOrNil(nanoseconds: block.expiry.idleNanoseconds)
    pinEndsAt = Moment(nanoseconds: block.pinnedUntilNanoseconds)
    priority = block.priority
    tier = "\(block.tier)"
    isInline = block.isInline
    file = block.file
    slot = block.slot
    generation = block.generation
    childRuns = block.children.map(\.rawValue)
    stamp = block.stamp
  }

  /// The block for people.
  var lines: [String] {
    let parent =
      parentRun == 0 ? "none (first block)" : "run \(parentRun), position \(parentPosition)"
    let fileName = "slots/\(twoDigits)\(hexadecimalDigits(UInt64(file), count: 8)).kvs"
    let place = isInline ? "in the catalog" : "\(tier): \(fileName), slot \(slot)"
    let age = createdAt.map(agoText) ?? "–"
    let kind = idleSeconds.map { " (idle, \(decimalText($0, digits: 3)) s after a use)" } ?? ""
    let expires = expiresAt.map { agoText($0) + kind } ?? "never"
    let pinned = pinEndsAt.map { "ends " + agoText($0) } ?? "no"
    let children = childRuns.map { "run \($0)" }.joined(separator: ", ")
    return fieldLines([
      ("block", blockKey),
      ("namespace", "\(namespace)"),
      ("position", "run \(run), position \(position)"),
      ("parent", parent),
      ("forks after it", children.isEmpty ? "none" : children),
      (wordsAreTokens ? "tokens" : "digest words", words.map { "\($0)" }.joined(separator: " ")),
      ("extra bytes", extra.isEmpty ? "none" : extra),
      ("payload", "\(byteText(payloadByteCount)) (\(payloadByteCount) bytes)"),
      ("place", "\(place), generation \(generation)"),
      ("created", age),
      ("expires", expires),
      ("pinned", pinned),
      ("priority", "\(priority)"),
      ("last use", stamp.map { "stamp \($0)" } ?? "below it (not the end of a path)"),
    ])
  }

  private var twoDigits: String { tier == "archive" ? "03" : "02" }
}

private func hexadecimalDigits(_ value: UInt64, count: Int) -> String {
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: max(0, count - digits.count)) + digits
}
