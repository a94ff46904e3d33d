import ArgumentParser
import Glibc
import KVCore
import KVStore

/// `kvstore inspect events`: what was stored and removed, as the catalog recorded it.
struct InspectEvents: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "events",
    abstract: "Print what was stored and removed, oldest first.",
    discussion: """
      The newest 65,536 events are kept, whoever did it. With --follow, goes on printing until it \
      is interrupted; the number of the last line goes on from there later with --after. With \
      --json, prints a JSON document a line.

      EXAMPLES
        kvstore inspect events STORE --kind removed
        kvstore inspect events STORE --follow --after 4711
      """
  )

  enum Kind: String, ExpressibleByArgument, CaseIterable {
    case stored, removed, quarantined, moved
  }

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @Flag(help: "Print one JSON document a line.")
  var json = false

  @Option(help: "Begin behind the event of this number. (default: with the oldest one)")
  var after: UInt64 = 0

  @Flag(help: "Wait for more and go on.")
  var follow = false

  @Option(help: "Only events of this kind.")
  var kind: Kind?

  @Option(help: "Only events of this namespace.")
  var namespace: UInt32?

  func run() throws {
    // Each look opens the store anew: a follower never keeps a reader or a deleted store open.
    var cursor = after
    repeat {
      let isMore = try readPage(&cursor)
      if isMore { continue }
      guard follow else { return }
      usleep(200_000)
    } while true
  }

  private func readPage(_ cursor: inout UInt64) throws -> Bool {
    var isMore = false
    try InspectOptions.parse([store]).withStore { opened in
      while true {
        let page = try opened.events(after: cursor, limit: 1000)
        if page.isLapped {
          writeError("kvstore: events behind \(cursor) are gone; going on with what is kept\n")
        }
        for event in page.events { try show(event) }
        cursor = page.cursor
        isMore = page.isLapped
        if page.events.count < 1000 { break }
      }
    }
    try Output.finish()
    return isMore
  }

  private func show(_ event: StoreEvent) throws {
    guard kind == nil || kind?.rawValue == "\(event.kind)",
      namespace == nil || namespace == event.namespace.rawValue
    else { return }
    let document = EventDocument(event)
    print(json ? try jsonText(document, isPretty: false) : document.line)
  }
}

/// An event in the JSON of `inspect events`.
struct EventDocument: CommandDocument {
  static let schema = "inspect-event"

  var sequence: UInt64
  var at: Moment?
  var kind: String
  /// Why it was removed; nil of other kinds.
  var reason: String?
  var tier: String
  var namespace: UInt32
  var run: UInt64
  var firstPosition: UInt32
  var blockCount: UInt32
  var owner: UInt32

  init(_ event: StoreEvent) {
    sequence = event.sequence
    at = Moment(nanoseconds: event.timeNanoseconds)
    kind = "\(event.kind)"
    reason = event.reason == .none ? nil : "\(event.reason)"
    tier = "\(event.tier)"
    namespace = event.namespace.rawValue
    run = event.run.rawValue
    firstPosition = event.firstPosition
    blockCount = event.blockCount
    owner = event.owner
  }

  var line: String {
    let last = firstPosition + max(1, blockCount) - 1
    let range = blockCount == 1 ? "\(firstPosition)" : "\(firstPosition)–\(last)"
    let why = reason.map { " (\($0))" } ?? ""
    return "\(sequence)  \(clockText(nanoseconds: at?.nanoseconds ?? 0))  \(kind)\(why)  "
      + "\(counted(Int(blockCount), "block")): namespace \(namespace), run \(run), \(range), \(tier)"
      + ", by process \(owner)"
  }
}
