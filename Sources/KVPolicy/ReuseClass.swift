/// What is known about blocks when they are used: blocks of one class are expected to come back alike.
struct ReuseClass: Equatable {
  /// Which part of a request's path.
  enum Part: Int, CaseIterable {
    /// Blocks that were used before.
    case repeated
    /// Blocks that are new.
    case new
    /// The very last new block: in some traces it is partial, and nothing goes on from it.
    case last
    /// What is left of a path where a later request turned off near its end.
    case left
  }

  static let turnCount = 5
  static let gapCount = 6
  static let count = Part.allCases.count * turnCount * gapCount

  let index: Int

  /// The class of a part.
  ///
  /// - Parameters:
  ///   - part: Of the path.
  ///   - turn: Number of requests that went on one from the other, with this one.
  ///   - gapMilliseconds: Since the request that this one goes on from; nil = it begins anew.
  init(_ part: Part, turn: Int, gapMilliseconds: Int64?) {
    let turnBucket =
      switch turn {
      case ...1: 0
      case 2: 1
      case ...4: 2
      case ...8: 3
      default: 4
      }
    let gapBucket =
      switch gapMilliseconds {
      case nil: 0
      case .some(..<10_000): 1
      case .some(..<40_000): 2
      case .some(..<160_000): 3
      case .some(..<640_000): 4
      default: 5
      }
    index = (part.rawValue * Self.turnCount + turnBucket) * Self.gapCount + gapBucket
  }

  /// Of the classes of all gaps.
  static func turnIndex(_ index: Int) -> Int { index / gapCount }
  /// Of the classes of all turns and gaps.
  static func partIndex(_ index: Int) -> Int { index / gapCount / turnCount }
}
