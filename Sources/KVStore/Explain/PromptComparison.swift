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
