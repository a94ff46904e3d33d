/// Which pieces of a stored text stand in another one, and where.
///
/// Pieces of at least `widthMin` tokens, found greedily from the stored text's front; in the order of the other text
/// and without overlap there.
package struct TokenAlignment: Sendable {
  /// The same tokens in both texts.
  package struct Piece: Sendable, Equatable {
    /// Where in the prompt.
    package var prompt: Int
    /// Where in the stored text.
    package var stored: Int
    package var count: Int
  }

  package static let widthMin = 4

  package private(set) var pieces: [Piece]
  /// Those of the pieces that follow each other in both texts, with the most tokens in all.
  package private(set) var inOrder: [Piece]

  /// Tokens of the prompt that the stored text has as well.
  package var commonCount: Int { pieces.reduce(0) { $0 + $1.count } }
  /// Of those, the ones that stand in the same order.
  package var inOrderCount: Int { inOrder.reduce(0) { $0 + $1.count } }

  package init(prompt: TokenWindows, stored: [UInt32]) {
    var found: [Piece] = []
    var at = 0
    var expected = 0
    while at + prompt.width <= stored.count {
      guard let piece = prompt.longest(of: stored, from: at, preferred: expected) else {
        at += 1
        continue
      }
      found.append(Piece(prompt: piece.offset, stored: at, count: piece.count))
      at += piece.count
      expected = piece.offset + piece.count
    }
    pieces = Self.withoutOverlap(found)
    inOrder = Self.heaviestChain(pieces)
  }

  /// In the order of the prompt; where two overlap, the longer one stays whole.
  private static func withoutOverlap(_ found: [Piece]) -> [Piece] {
    var kept: [Piece] = []
    for piece in found.sorted(by: { ($0.prompt, $1.count) < ($1.prompt, $0.count) }) {
      guard let last = kept.last, last.prompt + last.count > piece.prompt else {
        kept.append(piece)
        continue
      }
      if piece.count > last.count {
        kept[kept.count - 1] = piece
      } else {
        let overlap = last.prompt + last.count - piece.prompt
        if piece.count - overlap >= widthMin {
          kept.append(
            Piece(
              prompt: piece.prompt + overlap,
              stored: piece.stored + overlap,
              count: piece.count - overlap
            )
          )
        }
      }
    }
    return kept
  }

  /// Pieces are few; beyond so many the rest is left out, which shortens the chain and harms nothing.
  private static let chainCountMax = 1024

  private static func heaviestChain(_ all: [Piece]) -> [Piece] {
    let pieces = Array(all.prefix(chainCountMax))
    guard !pieces.isEmpty else { return [] }
    var weights = pieces.map(\.count)
    var before = [Int](repeating: -1, count: pieces.count)
    for index in pieces.indices {
      for earlier in 0..<index
      where pieces[earlier].stored + pieces[earlier].count <= pieces[index].stored {
        let weight = weights[earlier] + pieces[index].count
        if weight > weights[index] {
          weights[index] = weight
          before[index] = earlier
        }
      }
    }
    var chain: [Piece] = []
    var next = weights.indices.max { weights[$0] < weights[$1] } ?? -1
    while next >= 0 {
      chain.append(pieces[next])
      next = before[next]
    }
    return chain.reversed()
  }
}
