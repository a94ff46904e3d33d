/// What became of a stored text in a prompt that goes on differently from one token on.
///
/// Both are given from the first differing token on.
package enum PromptChange: Sendable, Equatable {
  /// Hardly anything in common: another conversation.
  case unrelated
  /// `promptCount` tokens stand for `storedCount`, then the stored text goes on; either count may be 0.
  case replaced(promptCount: Int, storedCount: Int, commonCount: Int)
  /// Parts of the stored text come in another order.
  case reordered(movedCount: Int, commonCount: Int)
  /// A part of the stored text stands in the prompt, at another place.
  case movedPart(promptOffset: Int, storedOffset: Int, count: Int)

  /// Tokens that the prompt and the stored text have in common behind the change.
  package var commonCount: Int {
    switch self {
    case .unrelated: 0
    case .replaced(_, _, let count), .reordered(_, let count), .movedPart(_, _, let count): count
    }
  }

  /// An edit of fewer tokens is one, whatever follows.
  private static let editCountMin = 32
  /// And so many tokens right behind it that both have, before each goes on in its own way.
  private static let resumedCountMin = 64

  package init(prompt: TokenWindows, stored: [UInt32]) {
    let alignment = TokenAlignment(prompt: prompt, stored: stored)
    let promptCount = prompt.tokens.count
    let shorterCount = min(promptCount, stored.count)
    // Both go on alike behind a few tokens, however long what each has behind that.
    let resumed = alignment.inOrder.first {
      $0.count >= Self.resumedCountMin && max($0.prompt, $0.stored) < Self.editCountMin
    }
    // A phrase that turns up in both is no sign of anything.
    let isRelated = alignment.commonCount >= 8 && alignment.commonCount * 8 >= shorterCount
    guard let first = alignment.inOrder.first, let last = alignment.inOrder.last,
      isRelated || resumed != nil
    else {
      self = .unrelated
      return
    }
    // Up to where the last long piece in order begins: there the prompts have found together again. A short one behind it is chance.
    let longestInOrder = alignment.inOrder.reduce(0) { max($0, $1.count) }
    let rejoined =
      (isRelated ? nil : resumed)
      ?? alignment.inOrder.last { $0.count * 4 >= longestInOrder } ?? last
    let changedCount = max(1, rejoined.prompt)
    // What moved stands before that in one of them; agreements behind it in both are chance.
    let isBefore: (TokenAlignment.Piece) -> Bool = {
      $0.prompt < rejoined.prompt || $0.stored < rejoined.stored
    }
    let movedCount =
      alignment.pieces.filter(isBefore).reduce(0) { $0 + $1.count }
      - alignment.inOrder.filter(isBefore).reduce(0) { $0 + $1.count }
    if movedCount >= 6, movedCount * 4 >= changedCount {
      self = .reordered(movedCount: movedCount, commonCount: alignment.commonCount)
      return
    }
    let restCount = min(promptCount - first.prompt, stored.count - first.stored)
    // Other tokens before it and behind it, on both sides: a part that two conversations have in common.
    let isIsland =
      min(first.prompt, first.stored) >= Self.editCountMin
      && max(first.prompt, first.stored) >= alignment.inOrderCount
      && min(promptCount - last.prompt - last.count, stored.count - last.stored - last.count)
        >= TokenAlignment.widthMin * 4
    // Most of what follows is the same: the change is what lies before.
    if alignment.inOrderCount * 2 >= restCount, !isIsland {
      self = .replaced(
        promptCount: first.prompt,
        storedCount: first.stored,
        commonCount: alignment.inOrderCount
      )
      return
    }
    if let resumed {
      self = .replaced(
        promptCount: resumed.prompt,
        storedCount: resumed.stored,
        commonCount: alignment.inOrderCount
      )
      return
    }
    let longest = alignment.pieces.max { $0.count < $1.count } ?? first
    self =
      longest.count >= 16
      ? .movedPart(
        promptOffset: longest.prompt,
        storedOffset: longest.stored,
        count: alignment.commonCount
      ) : .unrelated
  }
}
