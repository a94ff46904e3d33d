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

  @ArgumentParser.Argument(
    help: "The block's key, or as many of its first hexadecimal digits as no other key begins with."
  )
  var key: String

  @OptionGroup var chosen: NamespaceOption

  private static let shownKeyCountMax = 8

  /// Without the sign that `inspect tree` shortens keys with.
  private var digits: String { (key.hasSuffix("…") ? String(key.dropLast()) : key).lowercased() }

  func validate() throws {
    guard digits.utf8.count >= 4, digits.utf8.count <= 32, digits.allSatisfy(\.isHexDigit) else {
      throw ValidationError("KEY must be 4 to 32 hexadecimal digits.")
    }
  }

  func run() throws {
    try options.withStore { store in
      let namespaces = try chosen.selected(in: store)
      var keys: Set<String> = []
      for namespace in namespaces {
        let found = try store.inspector.blockKeys(
          namespace.id,
          beginningWith: digits,
          limit: Self.shownKeyCountMax + 1
        )
        keys.formUnion((found ?? []).map(\.hexadecimal))
      }
      guard keys.count <= 1 else {
        let shown = keys.sorted().prefix(Self.shownKeyCountMax).joined(separator: "\n  ")
        let more = keys.count > Self.shownKeyCountMax ? "\n  ..." : ""
        throw CommandFailure("several keys begin with \(key):\n  \(shown)\(more)")
      }
      guard let only = keys.first, let blockKey = BlockKey(hexadecimal: only) else {
        throw CommandFailure("no block's key begins with \(key)")
      }
      let documents = try namespaces.compactMap { namespace in
        try store.inspector.block(namespace.id, blockKey).map {
          BlockDocument($0, namespace: namespace)
        }
      }
      guard !documents.isEmpty else { throw CommandFailure("no block has the key \(only)") }
      try options.show(documents, Array(documents.map(\.lines).joined(separator: [""])))
    }
  }
}

/// A block in the JSON of `inspect block`: an array, since two namespaces without a chain in common can have one key.
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
  var createdSeconds: UInt32
  /// Unix nanoseconds, 0 = never; of an idle life as long as nobody uses the block.
  var expiryNanoseconds: UInt64
  /// Of an idle life the nanoseconds after a use, else 0.
  var idleNanoseconds: UInt64
  /// Unix nanoseconds, 0 = not pinned.
  var pinnedUntilNanoseconds: UInt64
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
    createdSeconds = block.createdSeconds
    expiryNanoseconds = block.expiry.endNanoseconds
    idleNanoseconds = block.expiry.idleNanoseconds
    pinnedUntilNanoseconds = block.pinnedUntilNanoseconds
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
    let age = ageText(secondsAgo: secondsSince(nanoseconds: UInt64(createdSeconds) * 1_000_000_000))
    let kind =
      idleNanoseconds == 0 ? "" : " (idle, \(idleNanoseconds / 1_000_000_000) s after a use)"
    let expires =
      expiryNanoseconds == 0 ? "never" : momentText(nanoseconds: expiryNanoseconds) + kind
    let pinned =
      pinnedUntilNanoseconds == 0 ? "no" : "ends " + momentText(nanoseconds: pinnedUntilNanoseconds)
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
