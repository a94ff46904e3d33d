import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect tree`: the prefix tree, a line for each run.
struct InspectTree: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tree",
    abstract: "Show the prefix tree, folded: a line for each run of blocks without a fork.",
    discussion: """
      A run that begins after a block of another one is drawn below it; "after" is the number of \
      blocks in the chain before its first one. The tree of a live store may change between two \
      lines. "hits" are look-ups that found the run, also those that went on below it; "ends" is when \
      its blocks come to the end of their life, the first and the last of them.
      """
  )

  @OptionGroup var options: InspectOptions
  @OptionGroup var chosen: NamespaceOption

  @Option(help: "Show at most this many runs of each namespace, of those that pass the filters.")
  var limit = 200

  @Flag(help: "Show the token ids with which each run begins; their text, too, with --vocabulary.")
  var tokens = false

  @OptionGroup var vocabulary: VocabularyOption

  @Option(help: "Fold what is deeper than so many runs below the root.")
  var depth: Int?

  @Option(help: "Only runs that hold at least this much payload, and those above them.")
  var minBytes: ByteSize?

  @Option(
    help: ArgumentHelp(
      "Only runs whose last block was stored within this time, and those above them.",
      discussion: "A number with its unit: 90s, 15m, 3h, 2d.",
      valueName: "time"
    )
  )
  var newerThan: TimeSpan?

  @Option(
    help: ArgumentHelp(
      "Only runs whose last block was stored longer ago than this, and those above them.",
      valueName: "time"
    )
  )
  var olderThan: TimeSpan?

  @Option(
    help: ArgumentHelp(
      "Only the path that a session stands on, and what hangs below its last block.",
      discussion: "Its number, as `inspect sessions` shows it.",
      valueName: "id"
    )
  )
  var session: UInt64?

  func validate() throws {
    guard limit > 0 else { throw ValidationError("--limit must be at least 1.") }
    if let depth, depth < 1 { throw ValidationError("--depth must be at least 1.") }
  }

  func run() throws {
    let names = try vocabulary.read()
    try options.withStore { store in
      let place = try session.map { try self.place(ofSession: $0, in: store) }
      let documents = try chosen.selected(in: store)
        .filter { place == nil || $0.id == place?.namespace }
        .map { try document($0, in: store, names, place?.head) }
      try options.show(
        TreesDocument(namespaces: documents),
        documents.isEmpty ? ["no namespaces"] : documents.flatMap(\.lines)
      )
    }
  }

  /// Where a session stands.
  private func place(
    ofSession id: UInt64,
    in store: Store
  ) throws -> (namespace: NamespaceID, head: BlockPosition) {
    guard let session = try store.inspector.session(id) else {
      throw CommandFailure("the store has no session \(id): kvstore inspect sessions")
    }
    guard let head = session.head else {
      throw CommandFailure("nothing is known to be stored of session \(id)")
    }
    return (session.namespace, head)
  }

  private func document(
    _ namespace: StoreInspector.NamespaceSummary,
    in store: Store,
    _ vocabulary: Vocabulary?,
    _ head: BlockPosition?
  ) throws -> TreeDocument {
    // Filters see all runs; without one, one more than is shown tells whether that is all.
    let readCountMax = isFiltering ? .max : limit + 1
    let all =
      try head.map { try store.inspector.tree(of: namespace.id, around: $0, limit: readCountMax) }
      ?? store.inspector.tree(of: namespace.id, limit: readCountMax)
    if head != nil, all.isEmpty { throw CommandFailure("what the session stood on has left") }
    let tokensPerBlock = namespace.identity?.tokensPerBlock ?? 0
    let hits = hitsWithThoseBelow(all)
    let passing = filtered(all)
    let isWhole = passing.count <= limit
    let rows = passing.prefix(limit).map { run, foldedBlockCount in
      let words = tokens || vocabulary != nil ? run.firstWords : nil
      return TreeDocument.Run(
        run,
        tokensPerBlock: tokensPerBlock,
        firstWords: words,
        firstText: words.flatMap { vocabulary?.text(of: $0) },
        foldedBlockCount: foldedBlockCount,
        hits: hits[run.run] ?? 0,
        sessionPosition: head?.run == run.run ? head?.position : nil
      )
    }
    return TreeDocument(
      namespace: namespace.id.rawValue,
      modelName: namespace.identity?.modelName ?? "",
      saltMark: namespace.saltMark,
      blockCount: namespace.blockCount,
      isWhole: isWhole,
      omittedBlockCount: head == nil
        ? max(0, namespace.blockCount - rows.reduce(0) { $0 + $1.blockCount }) : nil,
      runs: rows
    )
  }

  private var isFiltering: Bool {
    depth != nil || minBytes != nil || newerThan != nil || olderThan != nil
  }

  /// A look-up that ended below a run has found the run as well.
  private func hitsWithThoseBelow(_ runs: [StoreInspector.Run]) -> [RunID: UInt64] {
    var hits: [RunID: UInt64] = [:]
    // Children come after their parents.
    for run in runs.reversed() {
      hits[run.run, default: 0] += run.hitCount
      if run.parent != .root { hits[run.parent.run, default: 0] += hits[run.run] ?? 0 }
    }
    return hits
  }

  /// The runs that the filters leave, with those above them, and how many blocks are folded below each.
  private func filtered(_ runs: [StoreInspector.Run]) -> [(StoreInspector.Run, Int)] {
    let now = SystemClock().realTimeNanoseconds() / 1_000_000_000
    let indices = Dictionary(uniqueKeysWithValues: zip(runs.map(\.run), runs.indices))
    var isShown = runs.map { run in
      let age = now - min(now, UInt64(run.createdSeconds))
      return run.payloadByteCount >= minBytes?.byteCount ?? 0
        && newerThan.map { age <= $0.seconds } ?? true && olderThan.map { age > $0.seconds } ?? true
    }
    var folded = [Int](repeating: 0, count: runs.count)
    let depthMax = depth ?? .max
    // Children come after their parents, so each is dealt with before the one above it.
    for index in runs.indices.reversed() {
      guard let parent = indices[runs[index].parent.run] else { continue }
      if isShown[index] { isShown[parent] = true }
      if runs[index].depth >= depthMax { folded[parent] += runs[index].blockCount + folded[index] }
    }
    return runs.indices.filter { isShown[$0] && runs[$0].depth < depthMax }
      .map { (runs[$0], folded[$0]) }
  }
}

/// The JSON of `inspect tree`.
struct TreesDocument: CommandDocument {
  static let schema = "inspect-tree"

  var namespaces: [TreeDocument]
}

/// A namespace in the JSON of `inspect tree`.
struct TreeDocument: Encodable {
  struct Run: Encodable {
    var run: UInt64
    /// 0 for a run that begins a chain.
    var parentRun: UInt64
    var parentPosition: UInt32
    var depth: Int
    var firstBlockDepth: Int
    var blockCount: Int
    var tokenCount: Int
    var payloadByteCount: Int
    var firstBlockKey: String
    var lastBlockKey: String
    var createdAt: Moment?
    var corruptRowCount: Int
    var stamp: UInt64?
    var pinnedBlockCount: Int
    var firstWords: [UInt32]?
    var firstText: String?
    var archivedBlockCount: Int
    /// Blocks below it that --depth leaves out.
    var foldedBlockCount: Int
    /// Look-ups that found the run, those that went on below it included.
    var hitCount: UInt64
    /// Of these, those that ended in it; or below it, in a run that has left.
    var ownHitCount: UInt64
    /// Tokens that the latter found, from the root on.
    var ownHitTokenCount: UInt64
    /// When the first and the last of its blocks whose life ends come to its end; nil = none does.
    var firstEndsAt: Moment?
    var lastEndsAt: Moment?
    /// Blocks without an end.
    var endlessBlockCount: Int
    /// With --session: the block of this run that the session stands on.
    var sessionPosition: UInt32?

    init(
      _ run: StoreInspector.Run,
      tokensPerBlock: Int,
      firstWords: [UInt32]?,
      firstText: String?,
      foldedBlockCount: Int,
      hits: UInt64,
      sessionPosition: UInt32?
    ) {
      self.run = run.run.rawValue
      parentRun = run.parent.run.rawValue
      parentPosition = run.parent.position
      depth = run.depth
      firstBlockDepth = run.firstBlockDepth
      blockCount = run.blockCount
      tokenCount = run.blockCount * tokensPerBlock
      payloadByteCount = run.payloadByteCount
      firstBlockKey = run.firstBlockKey.hexadecimal
      lastBlockKey = run.lastBlockKey.hexadecimal
      createdAt = Moment(seconds: run.createdSeconds)
      corruptRowCount = run.corruptRowCount
      stamp = run.stamp
      pinnedBlockCount = run.pinnedBlockCount
      self.firstWords = firstWords
      self.firstText = firstText
      self.foldedBlockCount = foldedBlockCount
      archivedBlockCount = run.archivedBlockCount
      hitCount = hits
      ownHitCount = run.hitCount
      ownHitTokenCount = run.hitTokenCount
      firstEndsAt = run.firstEndNanoseconds.flatMap(Moment.init(nanoseconds:))
      lastEndsAt = run.lastEndNanoseconds.flatMap(Moment.init(nanoseconds:))
      endlessBlockCount = run.endlessBlockCount
      self.sessionPosition = sessionPosition
    }

    /// "in 5 min", "in 5 min – 2 h", "in 5 min – never", "–".
    var endText: String {
      guard let first = firstEndsAt, let last = lastEndsAt else { return "–" }
      let begin = agoText(first)
      let end = endlessBlockCount > 0 ? "never" : agoText(last)
      return begin == end ? begin : "\(begin) – \(end)"
    }
  }

  var namespace: UInt32
  var modelName: String
  var saltMark: String?
  var blockCount: Int
  /// false: more runs pass the filters than --limit allows.
  var isWhole: Bool
  /// Blocks of the namespace in runs that are not shown; nil with --session, which is about a path.
  var omittedBlockCount: Int?
  var runs: [Run]

  /// The tree for people.
  var lines: [String] {
    let salt = saltMark.map { ", salt \($0)" } ?? ""
    let name = modelName.isEmpty ? salt : " (\(printable(modelName))\(salt))"
    var table = TextTable([
      ("namespace \(namespace)\(name)", .left), ("blocks", .right), ("tokens", .right),
      ("after", .right), ("payload", .right), ("age", .right), ("hits", .right), ("ends", .left),
      ("first key", .left), ("", .left),
    ])
    for (branch, run) in zip(branches(), runs) {
      var notes: [String] = []
      if run.corruptRowCount > 0 { notes.append("\(run.corruptRowCount) damaged rows") }
      if run.pinnedBlockCount > 0 { notes.append("\(run.pinnedBlockCount) pinned") }
      if run.archivedBlockCount > 0 { notes.append("\(run.archivedBlockCount) archived") }
      if let position = run.sessionPosition {
        notes.append("the session stands on block \(position + 1) of \(run.blockCount)")
      }
      if run.foldedBlockCount > 0 {
        notes.append("… \(counted(run.foldedBlockCount, "block")) below")
      }
      if let text = run.firstText {
        notes.append("“\(text.prefix(60))”")
      } else if let words = run.firstWords {
        let shown = words.prefix(8).map { "\($0)" }.joined(separator: " ")
        notes.append("[\(shown)\(words.count > 8 ? " …" : "")]")
      }
      table.append([
        "\(branch)run \(run.run)", "\(run.blockCount)", "\(run.tokenCount)",
        "\(run.firstBlockDepth)", byteText(run.payloadByteCount),
        run.createdAt.map(agoText) ?? "–",
        "\(isWhole || run.hitCount == run.ownHitCount ? "" : "≥ ")\(run.hitCount)", run.endText,
        "\(run.firstBlockKey.prefix(12))…", notes.joined(separator: " "),
      ])
    }
    let why = isWhole ? "" : ": raise --limit for more"
    let omitted = omittedBlockCount ?? 0
    let footer =
      omitted > 0 || !isWhole
      ? ["\(counted(omitted, "block")) in runs that are not shown\(why)"] : []
    return table.lines() + footer + [""]
  }

  /// What is drawn before each run: the runs are parents before children, so a run has a later sibling if one of its
  /// depth comes before the next shallower one.
  private func branches() -> [String] {
    var hasLaterSibling: [Bool] = []
    var depthsBelow: Set<Int> = []
    for run in runs.reversed() {
      hasLaterSibling.append(depthsBelow.contains(run.depth))
      depthsBelow = depthsBelow.filter { $0 < run.depth }
      depthsBelow.insert(run.depth)
    }
    var stems: [String] = []
    return zip(runs, hasLaterSibling.reversed()).map { run, hasLater in
      stems.removeLast(max(0, stems.count - run.depth))
      let branch = stems.joined() + (hasLater ? "├─ " : "└─ ")
      stems.append(hasLater ? "│  " : "   ")
      return branch
    }
  }
}
