import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect prefix`: which blocks of a prompt are stored, and where.
struct InspectPrefix: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prefix",
    abstract: "Show the stored blocks of a prompt: how far it is stored, and where.",
    discussion: """
      The prompt is a list of token ids in a file, or on stdin for -: 1 2 3, or [1, 2, 3]. In a \
      namespace that is identified by digests, a hexadecimal digest a line.

      EXAMPLES
        kvstore inspect prefix STORE prompt.json
        tokenize < prompt.txt | kvstore inspect prefix STORE - --json
      """
  )

  @OptionGroup var options: InspectOptions

  @ArgumentParser.Argument(help: "A file with the prompt's token ids, - for stdin.")
  var prompt: String

  @OptionGroup var chosen: OneNamespaceOption

  func run() throws {
    try options.withStore { store in
      let (namespace, identity) = try chosen.selected(in: store)
      let input = try PromptInput(path: prompt, identity: identity)
      let document = PrefixDocument(
        namespace: namespace.id.rawValue,
        tokensPerBlock: identity.tokensPerBlock,
        try store.inspector.prefix(of: input.words, in: namespace.id)
      )
      try options.show(document, document.lines)
    }
  }
}

/// The JSON of `inspect prefix`.
struct PrefixDocument: CommandDocument {
  static let schema = "inspect-prefix"

  struct Block: Encodable {
    var blockKey: String
    var run: UInt64
    var position: UInt32
    var tier: String
    var payloadByteCount: Int
    var createdAt: Moment?
  }

  var namespace: UInt32
  var tokensPerBlock: Int
  var blockCount: Int
  var matchedBlockCount: Int
  var matchedTokenCount: Int
  var payloadByteCount: Int
  var blocks: [Block]

  init(namespace: UInt32, tokensPerBlock: Int, _ prefix: StoreInspector.StoredPrefix) {
    self.namespace = namespace
    self.tokensPerBlock = tokensPerBlock
    blockCount = prefix.blockCount
    matchedBlockCount = prefix.blocks.count
    matchedTokenCount = prefix.blocks.count * tokensPerBlock
    payloadByteCount = prefix.blocks.reduce(0) { $0 + $1.payloadByteCount }
    blocks = prefix.blocks.map {
      Block(
        blockKey: $0.blockKey.hexadecimal,
        run: $0.position.run.rawValue,
        position: $0.position.position,
        tier: "\($0.tier)",
        payloadByteCount: $0.payloadByteCount,
        createdAt: Moment(seconds: $0.createdSeconds)
      )
    }
  }

  /// A line for each run that the prompt goes through.
  var lines: [String] {
    var lines = fieldLines([
      ("namespace", "\(namespace)"),
      ("stored", "\(matchedBlockCount) of \(blockCount) full blocks, \(matchedTokenCount) tokens"),
      ("payload", byteText(payloadByteCount)),
    ])
    guard !blocks.isEmpty else { return lines }
    var table = TextTable([
      ("run", .right), ("positions", .left), ("tokens", .left), ("tier", .left),
      ("payload", .right), ("age", .right), ("last key", .left),
    ])
    var first = 0
    while first < blocks.count {
      var last = first
      while last + 1 < blocks.count, blocks[last + 1].run == blocks[first].run,
        blocks[last + 1].tier == blocks[first].tier
      {
        last += 1
      }
      let part = blocks[first...last]
      table.append([
        "\(blocks[first].run)", "\(blocks[first].position)–\(blocks[last].position)",
        "\(first * tokensPerBlock)–\((last + 1) * tokensPerBlock - 1)", blocks[first].tier,
        byteText(part.reduce(0) { $0 + $1.payloadByteCount }),
        blocks[last].createdAt.map(agoText) ?? "–",
        blocks[last].blockKey,
      ])
      first = last + 1
    }
    lines.append("")
    return lines + table.lines()
  }
}
