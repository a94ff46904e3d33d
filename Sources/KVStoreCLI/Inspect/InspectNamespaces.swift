import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect namespaces`: the identities in a store and what each holds.
struct InspectNamespaces: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "namespaces",
    abstract: "Show the namespaces: their identities and what each holds.",
    discussion: """
      A salt is never shown: the store keeps a digest of it under a key of its own, and the first digits of that tell salts apart.
      """
  )

  @OptionGroup var options: InspectOptions

  func run() throws {
    try options.withStore { store in
      let document = NamespacesDocument(
        namespaces: try store.inspector.namespaces().map(NamespaceDocument.init)
      )
      try options.show(document, Self.lines(document.namespaces))
    }
  }

  private static func lines(_ documents: [NamespaceDocument]) -> [String] {
    guard !documents.isEmpty else { return ["no namespaces"] }
    var table = TextTable([
      ("id", .right), ("model", .left), ("dtype", .left), ("mode", .left), ("tokens", .right),
      ("regions", .right), ("block", .right), ("slot", .right), ("salt", .left),
      ("blocks", .right), ("payload", .right), ("besides", .right),
      ("root key", .left),
    ])
    for document in documents {
      let identity = document.identity
      table.append([
        "\(document.id)", named(identity?.modelName), named(identity?.kvDtype),
        mode(identity), identity.map { "\($0.tokensPerBlock)" } ?? "–",
        identity.map { "\($0.regionByteCounts.count)" } ?? "–",
        identity.map { byteText($0.regionByteCounts.reduce(0, +)) } ?? "–",
        document.slotByteCount == 0 ? "catalog" : byteText(document.slotByteCount),
        document.saltMark ?? "–", "\(document.blockCount)",
        byteText(document.payloadByteCount), byteText(document.overheadByteCount),
        "\(document.rootKey.prefix(12))…",
      ])
    }
    return table.lines()
  }

  private static func mode(_ identity: NamespaceDocument.Identity?) -> String {
    guard let identity else { return "damaged" }
    return identity.sideSection.map { "section \(printable($0))" } ?? identity.mode
  }

  private static func named(_ text: String?) -> String {
    guard let text, !text.isEmpty else { return "–" }
    return printable(text)
  }
}

/// Text that an engine chose, without characters that would move the terminal's cursor.
func printable(_ text: String) -> String {
  String(
    text.unicodeScalars.map { scalar in
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator: "?"
      default: Character(scalar)
      }
    }
  )
}

/// The JSON of `inspect namespaces`.
struct NamespacesDocument: CommandDocument {
  static let schema = "inspect-namespaces"

  var namespaces: [NamespaceDocument]
}

/// A namespace in the JSON of `inspect namespaces`.
struct NamespaceDocument: Encodable {
  struct Identity: Encodable {
    struct Group: Encodable {
      var firstRegion: Int
      var regionCount: Int
      var windowTokenCount: Int
    }

    var mode: String
    var tokensPerBlock: Int
    var digestByteCount: Int
    var regionByteCounts: [Int]
    var regionsAreVariable: Bool
    var groups: [Group]
    var extraByteCountMax: Int
    /// The name of what it holds beside another namespace's blocks.
    var sideSection: String?
    var modelName: String
    var kvDtype: String
    var kvQuantization: String
    var layout: String
    var rope: String
    var engineFormat: String
    var weightsDigest: String
    var adapterDigest: String
    var tokenizerDigest: String
    /// In hexadecimal digits, as all digests.
    var engineData: String
    var layerCount: Int
    var kvHeadCount: Int
    var headSize: Int
    var tensorRank: Int
    var tensorSize: Int
    var pipelineRank: Int
    var pipelineSize: Int
    var contextRank: Int
    var contextSize: Int
  }

  var id: UInt32
  var rootKey: String
  /// nil when the record is damaged.
  var identity: Identity?
  /// Eight digits of the salt's keyed digest, which tell the salts of one store apart; nil without one.
  var saltMark: String?
  /// 0: payloads lie in the catalog.
  var slotByteCount: Int
  var blockCount: Int
  var payloadByteCount: Int
  var storedByteCount: Int
  /// What it takes beside its blocks.
  var overheadByteCount: Int

  init(_ summary: StoreInspector.NamespaceSummary) {
    id = summary.id.rawValue
    rootKey = summary.rootKey.hexadecimal
    identity = summary.identity.map(Identity.init)
    saltMark = summary.saltMark
    slotByteCount = summary.slotByteCount
    blockCount = summary.blockCount
    payloadByteCount = summary.payloadByteCount
    storedByteCount = summary.storedByteCount
    overheadByteCount = summary.overheadByteCount
  }
}

extension NamespaceDocument.Identity {
  fileprivate init(_ identity: NamespaceIdentity) {
    self.init(
      mode: identity.identityMode == .tokens ? "tokens" : "digest",
      tokensPerBlock: identity.tokensPerBlock,
      digestByteCount: identity.digestByteCount,
      regionByteCounts: identity.regionByteCounts,
      regionsAreVariable: identity.regionsAreVariable,
      groups: identity.groups.map {
        Group(
          firstRegion: $0.regions.lowerBound,
          regionCount: $0.regions.count,
          windowTokenCount: $0.windowTokenCount
        )
      },
      extraByteCountMax: identity.extraByteCountMax,
      sideSection: identity.sideSection?.name,
      modelName: identity.modelName,
      kvDtype: identity.kvDtype,
      kvQuantization: identity.kvQuantization,
      layout: identity.layout,
      rope: identity.rope,
      engineFormat: identity.engineFormat,
      weightsDigest: hexadecimal(identity.weightsDigest),
      adapterDigest: hexadecimal(identity.adapterDigest),
      tokenizerDigest: hexadecimal(identity.tokenizerDigest),
      engineData: hexadecimal(identity.engineBytes),
      layerCount: identity.shape.layerCount,
      kvHeadCount: identity.shape.kvHeadCount,
      headSize: identity.shape.headSize,
      tensorRank: identity.parallelism.tensorRank,
      tensorSize: identity.parallelism.tensorSize,
      pipelineRank: identity.parallelism.pipelineRank,
      pipelineSize: identity.parallelism.pipelineSize,
      contextRank: identity.parallelism.contextRank,
      contextSize: identity.parallelism.contextSize
    )
  }
}

/// Bytes as hexadecimal digits.
func hexadecimal(_ bytes: [UInt8]) -> String {
  bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
}
