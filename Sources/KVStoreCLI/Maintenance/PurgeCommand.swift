import ArgumentParser
import Glibc
import KVAdmin
import KVCore
import KVStore

/// `kvstore purge`: removes all blocks of a namespace, durably, and overwrites their slots.
struct PurgeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "purge",
    abstract: "Remove all blocks of a namespace and overwrite their slots.",
    discussion: """
      Works at rest and beside a live server. *Purged* when the blocks are gone for every look-up and every \
      repair; *erased* when their slots have been overwritten. Waits for both unless --no-wait is given.

      EXAMPLES
        kvstore inspect namespaces STORE
        kvstore purge STORE --namespace 3 --dry-run
        kvstore purge STORE --namespace 3
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @Option(help: "Number of the namespace, as `inspect namespaces` shows it.")
  var namespace: UInt32

  @Flag(help: "Say what would be removed, and remove nothing.")
  var dryRun = false

  @Flag(inversion: .prefixedNo, help: "Wait until the slots have been overwritten.")
  var wait = true

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    try withStore(at: store, readOnly: dryRun) { opened in
      let found = try opened.inspector.namespaces().first { $0.id.rawValue == namespace }
      guard let found else { throw CommandFailure("the store has no namespace \(namespace)") }
      var document = PurgeDocument(
        namespace: namespace,
        isDryRun: dryRun,
        blockCount: found.blockCount,
        payloadByteCount: found.payloadByteCount,
        isPurged: false,
        isErased: false
      )
      if !dryRun {
        document.blockCount = try opened.purgeNamespace(found.id)
        document.isPurged = true
        document.isErased = try isErased(opened)
      }
      print(json ? try jsonText(document) : document.text)
    }
  }

  private func isErased(_ store: Store) throws -> Bool {
    let line = ProgressLine()
    defer { line.clear() }
    while true {
      let statistics = try store.statistics()
      if statistics.slotsErasePending == 0 { return true }
      guard wait else { return false }
      line.show("overwriting: \(statistics.slotsErasePending) slots left")
      usleep(20_000)
    }
  }
}

/// The JSON of `purge`.
struct PurgeDocument: CommandDocument {
  static let schema = "purge"

  var namespace: UInt32
  var isDryRun: Bool
  /// Removed, or with --dry-run to be removed.
  var blockCount: Int
  var payloadByteCount: Int
  var isPurged: Bool
  var isErased: Bool

  /// The document for people.
  var text: String {
    let what = "\(counted(blockCount, "block")), \(byteText(payloadByteCount)) of payload"
    if isDryRun { return "namespace \(namespace): would remove \(what)" }
    let erased =
      isErased ? "purged and erased" : "purged; slots are overwritten when the store is open next"
    return "namespace \(namespace): \(what): \(erased)"
  }
}

/// What a command may let a store take on disk.
enum CommandCapacity {
  /// The default, or more where the store was made with more: opening is no reason to evict.
  case noReasonToEvict
  /// This; nil = what the store was made with, or grown for.
  case exactly(Int?)
}

/// Opens a store, lends it, and closes it.
func withStore(
  at path: String,
  readOnly: Bool,
  hostBytes: Int = 0,
  capacity: CommandCapacity = .noReasonToEvict,
  _ body: (Store) throws -> Void
) throws {
  try reportingErrors(at: path) {
    var configuration = StoreConfiguration(path: path)
    configuration.readOnly = readOnly
    // Mostly nothing is restored.
    configuration.hostBytes = hostBytes
    let recorded: Int
    do throws(StoreError) { recorded = try Store.recordedCapacity(configuration) } catch {
      guard [.io(.openCatalog, errno: ENOENT), .io(.openCatalog, errno: ENOTDIR)].contains(error)
      else { throw error }
      throw CommandFailure("\(path): there is no store in this folder")
    }
    if case .exactly(_?) = capacity {} else { configuration.holdsToCapacity = false }
    configuration.capacityBytes =
      switch capacity {
      case .noReasonToEvict: max(configuration.capacityBytes, recorded)
      case .exactly(let byteCount): byteCount ?? recorded
      }
    let store = try Store.open(configuration)
    do { try body(store) } catch {
      do throws(StoreError) { try store.close() } catch { /* the first error is the one to tell */
      }
      throw error
    }
    try store.close()
  }
}
