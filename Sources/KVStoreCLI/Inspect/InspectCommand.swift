import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect`: shows what a store holds.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Show what a store holds.",
    discussion: """
      Reads only, in short transactions: works at rest and beside a live server, and sees what is \
      committed.

      EXAMPLES
        kvstore inspect STORE                            the store in one screen
        kvstore inspect namespaces STORE --json
        kvstore inspect tree STORE --namespace 1 --tokens
        kvstore inspect block STORE 2f9c1d66a3b0e5f7c8d9aa10b2c3d4e5
        kvstore inspect why-miss STORE prompt.json
      """,
    subcommands: [
      InspectSummary.self, InspectNamespaces.self, InspectTree.self, InspectBlock.self,
      InspectPins.self,
      InspectWhyMiss.self, InspectPrefix.self, InspectSessions.self, InspectEvents.self,
      InspectMetrics.self, InspectReport.self, InspectRuns.self, InspectRun.self,
    ],
    defaultSubcommand: InspectSummary.self
  )
}

/// What every subcommand takes.
struct InspectOptions: ParsableArguments {
  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @Flag(help: "Print one JSON document.")
  var json = false

  /// Opens the store for reading, lends it, closes it.
  func withStore(_ body: (Store) throws -> Void) throws {
    try reportingErrors(at: store) {
      var configuration = StoreConfiguration(path: store)
      configuration.readOnly = true
      // Nothing is restored here.
      configuration.hostBytes = 0
      let opened = try Store.open(configuration)
      defer { closeQuietly(opened) }
      try body(opened)
    }
  }

  /// Prints `document` with --json, else `lines`.
  func show(_ document: some CommandDocument, _ lines: @autoclosure () -> [String]) throws {
    print(json ? try jsonText(document) : lines().joined(separator: "\n"))
  }

  private func closeQuietly(_ store: Store) {
    do throws(StoreError) { try store.close() } catch { /* what was read has been shown */  }
  }
}

/// Which namespaces a subcommand is about.
struct NamespaceOption: ParsableArguments {
  @Option(help: "Number of the namespace, as `inspect namespaces` shows it. (default: all)")
  var namespace: UInt32?

  /// The chosen ones of the store's namespaces.
  func selected(in store: Store) throws -> [StoreInspector.NamespaceSummary] {
    let all = try store.inspector.namespaces()
    guard let namespace else { return all }
    let chosen = all.filter { $0.id.rawValue == namespace }
    guard !chosen.isEmpty else { throw CommandFailure("the store has no namespace \(namespace)") }
    return chosen
  }
}
