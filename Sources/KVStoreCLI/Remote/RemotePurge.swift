import ArgumentParser
import Glibc
import KVCore
import KVRedis
import KVRemote

/// `kvstore remote purge`: removes objects of an identity, or all of them.
struct RemotePurge: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "purge",
    abstract: "Remove the objects of an identity, or all of them.",
    discussion: """
      Asks before it removes anything, unless --yes is given. Stores that still use an identity write its objects again as their \
      settings say. Other keys of the server are never touched.

      EXAMPLES
        kvstore remote stat redis://cache
        kvstore remote purge redis://cache --identity 2f9c1d66a3b0e5f7 --dry-run
        kvstore remote purge redis://cache --all --yes
      """
  )

  @OptionGroup var options: RemoteOptions

  @Option(help: "Identity, as `remote stat` shows it; its first digits do.")
  var identity: String?

  @Flag(help: "Objects of all identities.")
  var all = false

  @Flag(help: "Say what would be removed, and remove nothing.")
  var dryRun = false

  @Flag(help: "Do not ask.")
  var yes = false

  func validate() throws {
    guard (identity != nil) != all else {
      throw ValidationError("name what is to be removed: --identity DIGITS, or --all.")
    }
    if let identity { try RemoteIdentity.checkDigits(identity) }
    if !dryRun, !yes, isatty(0) != 1 {
      throw ValidationError("nobody can be asked here: give --yes, or --dry-run to see what it is.")
    }
  }

  func run() throws {
    try options.withRemote { remote, _ in
      let (found, objectCount) = try count(remote)
      var document = RemotePurgeDocument(
        identities: found.sorted(),
        isDryRun: dryRun,
        objectCount: objectCount
      )
      if !dryRun, objectCount > 0 {
        guard yes || isConfirmed(document) else { throw CommandFailure("nothing was removed") }
        document.objectCount = 0
        let line = ProgressLine()
        defer { line.clear() }
        for name in document.identities {
          try eachPage(of: remote, prefix: RemoteIdentity.prefix(of: name), options) { names in
            let own = names.filter { RemoteIdentity.parts(of: $0) != nil }
            document.objectCount += try remote.remove(own, deadline: options.deadline)
            line.show("removed: \(document.objectCount)")
          }
        }
      }
      try options.show(document, document.lines)
    }
  }

  /// The identities that are meant, and how many objects they have.
  private func count(_ remote: RedisObjects) throws -> (identities: Set<String>, objectCount: Int) {
    let digits = (identity ?? "").lowercased()
    var found: Set<String> = []
    var names: Set<RemoteName> = []
    try eachPage(of: remote, prefix: RemoteName("kv1:\(digits)"), options) { page in
      for name in page {
        guard let parts = RemoteIdentity.parts(of: name) else { continue }
        found.insert(parts.identity)
        names.insert(name)
      }
    }
    if !all {
      guard !found.isEmpty else {
        throw CommandFailure("no identity begins with \(digits): see kvstore remote stat")
      }
      guard found.count == 1 else {
        throw CommandFailure(
          "\(digits) is the beginning of \(found.count) identities: \(found.sorted().prefix(4).joined(separator: " "))"
        )
      }
    }
    return (found, names.count)
  }

  private func isConfirmed(_ document: RemotePurgeDocument) -> Bool {
    writeError(
      "Remove \(counted(document.objectCount, "object")) of "
        + "\(all ? "all identities" : "identity \(document.identities.joined(separator: " "))")? [yes/no] "
    )
    return readLine()?.trimmed == "yes"
  }
}

/// The JSON of `remote purge`.
struct RemotePurgeDocument: CommandDocument {
  static let schema = "remote-purge"

  var identities: [String]
  var isDryRun: Bool
  /// Removed, or with --dry-run to be removed.
  var objectCount: Int

  /// The document for people.
  var lines: [String] {
    let what = counted(objectCount, "object")
    let whose =
      identities.count == 1 ? "identity \(identities[0])" : "\(identities.count) identities"
    return ["\(whose): \(isDryRun ? "would remove \(what)" : "\(what) removed")"]
  }
}
