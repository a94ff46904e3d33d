internal import KVIndex

/// Two prompts beside each other: where the second diverges from the first, and how.
public struct PromptComparison: Sendable, Equatable {
  /// What the second one was made from.
  public var cause: Explanation.Cause
  /// Leading tokens that both have.
  public var commonTokenCount: Int
  /// Of those, whole blocks: what can be reused.
  public var commonBlockCount: Int
  /// In plain words.
  public var message: String

  /// Compares `prompt` with `other`, an earlier one.
  public init(_ prompt: [UInt32], _ other: [UInt32], tokensPerBlock: Int) {
    let limit = min(prompt.count, other.count)
    var common = 0
    while common < limit, prompt[common] == other[common] { common += 1 }
    var answer = Explanation()
    answer.blockCount = prompt.count / max(1, tokensPerBlock)
    answer.matchedBlockCount = common / max(1, tokensPerBlock)
    answer.matchedTokenCount = answer.matchedBlockCount * max(1, tokensPerBlock)
    answer.divergenceToken = common
    answer.branchCount = 1
    if common == prompt.count {
      answer.cause = .stored
    } else if common == other.count {
      answer.cause = .appended
      _ = answer.enterRepeated(prompt, from: common, wordsPerBlock: max(1, tokensPerBlock))
    } else {
      let windows = TokenWindows(Array(prompt[common...]), width: TokenAlignment.widthMin)
      answer.enter(
        PromptChange(prompt: windows, stored: Array(other[common...])),
        isRepeated: false
      )
    }
    cause = answer.cause
    commonTokenCount = common
    commonBlockCount = answer.matchedBlockCount
    message = "the first \(common) tokens are the same. \(answer.reason)"
  }
}

extension Explanation {
  /// Fewer tokens than these, two blocks or a twentieth of what is new are a phrase.
  static func partCountMin(_ newCount: Int, wordsPerBlock: Int) -> Int {
    max(16, wordsPerBlock * 2, newCount / 20)
  }

  /// Fewer tokens than these, sent once more, are no file.
  private static let repeatedCountMin = 64
  /// Tokens in front, and behind, that a session looks at.
  static let repeatedWindow = 16_384

  /// Whether a long part of what begins at `start` stands in the prompt's own front: a file that is sent once more.
  mutating func enterRepeated(_ prompt: [UInt32], from start: Int, wordsPerBlock: Int) -> Bool {
    let tail = Array(prompt[start...].prefix(Self.repeatedWindow))
    guard tail.count >= Self.repeatedCountMin else { return false }
    let frontStart = max(0, start - Self.repeatedWindow)
    return enterRepeated(
      TokenWindows(tail, width: TokenAlignment.widthMin),
      in: Array(prompt[frontStart..<start]),
      at: frontStart,
      wordsPerBlock: wordsPerBlock
    )
  }

  /// The same, of words that are at hand: `front` begins at `frontStart`.
  mutating func enterRepeated(
    _ tail: TokenWindows,
    in front: [UInt32],
    at frontStart: Int,
    wordsPerBlock: Int
  ) -> Bool {
    let pieces = TokenAlignment(prompt: tail, stored: front).pieces
    let countMin = max(
      Self.repeatedCountMin,
      Self.partCountMin(tail.tokens.count, wordsPerBlock: wordsPerBlock)
    )
    guard let piece = pieces.max(by: { $0.count < $1.count }), piece.count >= countMin else {
      return false
    }
    cause = .elsewhere
    lostTokenCount = piece.count
    elsewhereDepth = frontStart + piece.stored
    return true
  }

  /// Takes over what became of the nearest branch; `isRepeated`: more than one branch differs in the same few tokens.
  mutating func enter(_ change: PromptChange, isRepeated: Bool) {
    switch change {
    case .replaced(let new, let old, let common):
      promptTokenCount = new
      storedTokenCount = old
      lostTokenCount = common
      cause = isRepeated ? .volatileValue : old == 0 ? .inserted : new == 0 ? .deleted : .edited
    case .reordered(_, let common):
      lostTokenCount = common
      cause = .reordered
    case .movedPart(_, let storedOffset, let count):
      cause = .elsewhere
      lostTokenCount = count
      elsewhereDepth = divergenceToken + storedOffset
    case .unrelated:
      cause = .forked
    }
  }
}
