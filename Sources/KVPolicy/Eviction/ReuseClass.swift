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
  /// Of one part and turn: times since the request before, or lengths of the path where there was none.
  static let detailCount = 10
  private static let coarseDetailCount = 6
  static let count = Part.allCases.count * turnCount * detailCount

  let index: Int

  /// The class of a part.
  ///
  /// - Parameters:
  ///   - part: Of the path.
  ///   - turn: Number of requests that went on one from the other, with this one.
  ///   - gapMilliseconds: Since the request that this one goes on from; nil = it begins anew.
  ///   - pathBlockCount: Blocks of the whole path; 0 = not known.
  init(_ part: Part, turn: Int, gapMilliseconds: Int64?, pathBlockCount: Int) {
    let turnBucket =
      switch turn {
      case ...1: 0
      case 2: 1
      case ...4: 2
      case ...8: 3
      default: 4
      }
    let detail = gapMilliseconds.map(Self.detail) ?? Self.detail(pathBlockCount: pathBlockCount)
    index = (part.rawValue * Self.turnCount + turnBucket) * Self.detailCount + detail
  }

  /// Octaves from 5 s to 640 s.
  private static func detail(gapMilliseconds: Int64) -> Int {
    var detail = 1
    var edge: Int64 = 5000
    while detail < detailCount - 1, gapMilliseconds >= edge {
      detail += 1
      edge *= 2
    }
    return detail
  }

  /// Powers of four.
  private static func detail(pathBlockCount: Int) -> Int {
    var detail = 0
    var edge = 4
    while detail < detailCount - 1, pathBlockCount >= edge {
      detail += 1
      edge *= 4
    }
    return detail
  }

  // What a class has not seen itself it takes from larger ones.

  /// Of the classes of two neighbouring details.
  static func coarseIndex(_ index: Int) -> Int {
    index / detailCount * coarseDetailCount + (index % detailCount + 1) / 2
  }
  /// Of the classes of all details.
  static func turnIndex(_ index: Int) -> Int { index / detailCount }
  /// Of the classes of all turns and details.
  static func partIndex(_ index: Int) -> Int { index / detailCount / turnCount }
}
