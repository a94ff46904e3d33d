import ArgumentParser
import KVCore
import KVStore

/// Whose runs are meant, and the namespaces that they lie in.
struct AgentOwner: ParsableArguments {
  @Option(help: "The run's user. (default: nobody in particular)")
  var user: String?

  @Option(
    help: ArgumentHelp("What the AgentStore was given as its secret.", valueName: "file"),
    completion: .file()
  )
  var secretFile: String?

  /// What both of a user's namespaces are opened with (store.py).
  func salt() throws -> [UInt8] {
    guard let user else { return [] }
    let mark = AgentKey.digest([
      "kvstore.agent": AgentKey.quoted("user"), "user": AgentKey.quoted(user),
    ])
    return SHA256.hash(mark + (try secretFile.map(readFile) ?? []))
  }

  /// The identity of records, or of the pieces of large ones (blocks.py).
  func identity(areLarge: Bool) throws -> NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.identityMode = .digest
    identity.tokensPerBlock = 1
    identity.digestByteCount = 32
    identity.regionsAreVariable = true
    identity.regionByteCounts = [areLarge ? 65_536 : 16_384]
    identity.modelName = "kvstore.agent"
    identity.engineFormat = "kvstore.agent 1"
    identity.layout = areLarge ? "pieces" : "records"
    identity.salt = try salt()
    return identity
  }
}
