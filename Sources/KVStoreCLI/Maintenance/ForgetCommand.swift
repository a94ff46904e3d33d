import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore forget`: removes a block and all that hangs below it.
struct ForgetCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "forget",
    abstract: "Remove a block and all blocks below it.",
    discussion: """
      Durable: no look-up and no repair finds them any more. Works at rest and beside a live server, whatever leases and \
      pins hold. The slots are not overwritten; kvstore purge does that with a whole namespace.

      EXAMPLES
        kvstore inspect tree STORE
        kvstore forget STORE 2f9c1d66a3b0 --dry-run
        kvstore forget STORE 2f9c1d66a3b0
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @OptionGroup var key: KeyArgument

  @OptionGroup var chosen: NamespaceOption

  @Flag(help: "Say what would be removed, and remove nothing.")
  var dryRun = false

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    try withStore(at: store, readOnly: dryRun) { opened in
      let namespaces = try chosen.selected(in: opened)
      let blockKey = try key.found(in: namespaces, of: opened)
      let holders = try namespaces.filter {
        try opened.inspector.block($0.id, blockKey) != nil
      }
      guard let holder = holders.first else {
        throw CommandFailure("no block has the key \(blockKey.hexadecimal)")
      }
      guard holders.count == 1 else {
        let numbers = holders.map { "\($0.id.rawValue)" }.joined(separator: ", ")
        throw CommandFailure("namespaces \(numbers) have this key: say which with --namespace")
      }
      var document = ForgetDocument(
        namespace: holder.id.rawValue,
        blockKey: blockKey.hexadecimal,
        isDryRun: dryRun,
        blockCount: try opened.inspector.blockCount(from: blockKey, in: holder.id)
      )
      if !dryRun { document.blockCount = try opened.forget(blockKey, in: holder.id) }
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// The JSON of `forget`.
struct ForgetDocument: CommandDocument {
  static let schema = "forget"

  var namespace: UInt32
  var blockKey: String
  var isDryRun: Bool
  /// Removed, or with --dry-run to be removed.
  var blockCount: Int

  /// The document for people.
  var text: String {
    let what = counted(blockCount, "block")
    return isDryRun
      ? "namespace \(namespace): would remove \(what)" : "namespace \(namespace): \(what) removed"
  }
}
