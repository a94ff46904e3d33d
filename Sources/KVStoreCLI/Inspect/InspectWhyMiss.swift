import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect why-miss`: where a prompt diverges from what is stored, and why.
struct InspectWhyMiss: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "why-miss",
    abstract: "Say why a prompt is stored only up to where it is.",
    discussion: """
      Finds the token at which the prompt diverges, the nearest stored branches and how they go \
      on, the field in which the namespace differs from one that has the prompt, or when and why \
      the missing block left; and says what to do about it. With --other, compares two prompts \
      with each other as well.

      A prompt is a list of token ids: 1 2 3, or [1, 2, 3], or one a line. In a namespace that is \
      identified by digests, a hexadecimal digest a line.

      EXAMPLES
        kvstore inspect why-miss STORE prompt.json
        tokenize < prompt.txt | kvstore inspect why-miss STORE - --namespace 2 --json
        kvstore inspect why-miss STORE today.json --other yesterday.json
      """
  )

  @OptionGroup var options: InspectOptions

  @ArgumentParser.Argument(help: "A file with the prompt's token ids, - for stdin.")
  var prompt: String

  @OptionGroup var chosen: OneNamespaceOption

  @Option(help: "A second prompt, to compare the first one with.")
  var other: String?

  @OptionGroup var vocabulary: VocabularyOption

  func run() throws {
    let names = try vocabulary.read()
    try options.withStore { store in
      let (namespace, identity) = try chosen.selected(in: store)
      let first = try PromptInput(path: prompt, identity: identity)
      let explanation = try store.inspector.explain(namespace.id, first.words)
      var comparison: PromptComparison?
      if let other {
        let second = try PromptInput(path: other, identity: identity)
        comparison = PromptComparison(
          first.words,
          second.words,
          tokensPerBlock: first.words.isEmpty ? 1 : identity.wordCountPerBlock
        )
      }
      let document = WhyMissDocument(
        namespace: namespace.id.rawValue,
        tokenCount: first.words.count,
        explanation,
        comparison,
        names,
        try store.inspector.remoteAnswers(for: first.words, in: namespace.id).map {
          WhyMissDocument.Remote($0, identity, blockCount: explanation.blockCount)
        }
      )
      try options.show(document, document.lines)
    }
  }
}

/// The JSON of `inspect why-miss`.
struct WhyMissDocument: CommandDocument {
  static let schema = "inspect-why-miss"

  struct Branch: Encodable {
    var run: UInt64
    var position: UInt32
    var commonTokenCount: Int
    var blockCount: Int
    var nextTokens: [UInt32]
    var nextText: String?
    var createdAt: Moment?
  }

  struct Difference: Encodable {
    var field: String
    var here: String
    var there: String
  }

  struct Comparison: Encodable {
    var commonTokenCount: Int
    var commonBlockCount: Int
    var cause: String
    var message: String
  }

  /// What a process with a remote tier knows of the prompt.
  struct Remote: Encodable {
    var processID: Int32
    var server: String
    /// not_asked, fetching, absent, found, failed; left_alone, unauthorized where it would not be asked now.
    var answer: String
    /// Why not all of it came, or why it is left alone.
    var cause: String?
    /// When it was asked, or has been left alone since.
    var askedAt: Moment?
    /// Behind this token of the prompt.
    var askedToken: Int?
    var foundTokenCount: Int
    var fetchedTokenCount: Int
    var message: String
  }

  var namespace: UInt32
  var cause: String
  var message: String
  var tokenCount: Int
  var blockCount: Int
  var matchedBlockCount: Int
  var matchedTokenCount: Int
  var divergenceToken: Int
  var promptTokenCount: Int
  var storedTokenCount: Int
  var lostTokenCount: Int
  var elsewhereToken: Int?
  /// When the missing block was removed.
  var leftAt: Moment?
  var branchCount: Int
  var branches: [Branch]
  var otherNamespace: UInt32?
  var otherMatchedTokenCount: Int
  var differences: [Difference]
  var comparison: Comparison?
  /// Empty where no process that has the store open has a remote tier.
  var remote: [Remote]

  init(
    namespace: UInt32,
    tokenCount: Int,
    _ explanation: Explanation,
    _ comparison: PromptComparison?,
    _ vocabulary: Vocabulary?,
    _ remote: [Remote]
  ) {
    self.remote = remote
    self.namespace = namespace
    self.tokenCount = tokenCount
    cause = "\(explanation.cause)"
    message = explanation.message
    blockCount = explanation.blockCount
    matchedBlockCount = explanation.matchedBlockCount
    matchedTokenCount = explanation.matchedTokenCount
    divergenceToken = explanation.divergenceToken
    promptTokenCount = explanation.promptTokenCount
    storedTokenCount = explanation.storedTokenCount
    lostTokenCount = explanation.lostTokenCount
    elsewhereToken = explanation.elsewhereDepth
    leftAt = Moment(nanoseconds: explanation.leftNanoseconds)
    branchCount = explanation.branchCount
    branches = explanation.branches.map {
      Branch(
        run: $0.position.run.rawValue,
        position: $0.position.position,
        commonTokenCount: $0.commonTokenCount,
        blockCount: $0.blockCount,
        nextTokens: $0.nextTokens,
        nextText: vocabulary?.text(of: $0.nextTokens),
        createdAt: Moment(seconds: $0.createdSeconds)
      )
    }
    otherNamespace = explanation.otherNamespace?.rawValue
    otherMatchedTokenCount = explanation.otherMatchedTokenCount
    differences = explanation.differences.map {
      Difference(field: $0.field, here: $0.here, there: $0.there)
    }
    self.comparison = comparison.map {
      Comparison(
        commonTokenCount: $0.commonTokenCount,
        commonBlockCount: $0.commonBlockCount,
        cause: "\($0.cause)",
        message: $0.message
      )
    }
  }

  /// The document for people.
  var lines: [String] {
    var lines = fieldLines(
      [
        ("prompt", "\(tokenCount) tokens, \(blockCount) full blocks, in namespace \(namespace)"),
        ("stored", "\(matchedTokenCount) tokens, \(matchedBlockCount) blocks"),
        ("diverges at", cause == "stored" ? "–" : "token \(divergenceToken)"),
        ("cause", cause),
      ] + remote.map { ("remote", $0.message) }
    )
    lines += [""] + wrapped(message)
    if !differences.isEmpty {
      var table = TextTable([("field", .left), ("here", .left), ("there", .left)])
      for difference in differences {
        table.append([difference.field, printable(difference.here), printable(difference.there)])
      }
      lines += [""] + table.lines()
    }
    if !branches.isEmpty {
      var table = TextTable([
        ("stored branch", .left), ("same tokens", .right), ("blocks", .right), ("age", .right),
        ("goes on with", .left),
      ])
      for branch in branches {
        let age = branch.createdAt.map(agoText) ?? "–"
        let next = branch.nextTokens.map { "\($0)" }.joined(separator: " ")
        table.append([
          "run \(branch.run), position \(branch.position)", "\(branch.commonTokenCount)",
          "\(branch.blockCount)", age, branch.nextText ?? next,
        ])
      }
      lines += [""] + table.lines()
      if branchCount > branches.count { lines.append("… and \(branchCount - branches.count) more") }
    }
    if let comparison {
      lines += ["", "The two prompts: \(comparison.message)"]
    }
    return lines
  }
}

extension NamespaceIdentity {
  /// Words that stand for a block in a file of `why-miss`.
  fileprivate var wordCountPerBlock: Int {
    identityMode == .tokens ? tokensPerBlock : digestByteCount / 4
  }
}
