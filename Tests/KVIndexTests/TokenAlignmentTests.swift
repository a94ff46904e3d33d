import KVIndex
import Testing

@Suite struct TokenAlignmentTests {
  private func alignment(_ prompt: [UInt32], _ stored: [UInt32]) -> TokenAlignment {
    TokenAlignment(prompt: TokenWindows(prompt, width: TokenAlignment.widthMin), stored: stored)
  }

  @Test func piecesAreTheSameTokensAndDoNotOverlap() {
    var state: UInt64 = 1
    func random(_ bound: UInt64) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int((state >> 33) % bound)
    }
    for round in 0..<200 {
      // Few different tokens, so that pieces repeat and overlap.
      let alphabet = UInt64(2 + round % 40)
      let stored = (0..<random(120)).map { _ in UInt32(random(alphabet)) }
      var prompt = stored
      for _ in 0..<random(4) where !prompt.isEmpty {
        let at = random(UInt64(prompt.count))
        let count = min(random(20), prompt.count - at)
        let part = Array(prompt[at..<at + count])
        prompt.removeSubrange(at..<at + count)
        prompt.insert(contentsOf: part, at: random(UInt64(prompt.count + 1)))
      }
      let found = alignment(prompt, stored)
      var end = 0
      for piece in found.pieces {
        #expect(piece.prompt >= end && piece.count >= TokenAlignment.widthMin)
        #expect(
          prompt[piece.prompt..<piece.prompt + piece.count]
            == stored[piece.stored..<piece.stored + piece.count],
          "round \(round)"
        )
        end = piece.prompt + piece.count
      }
      var storedEnd = 0
      for piece in found.inOrder {
        #expect(piece.stored >= storedEnd)
        storedEnd = piece.stored + piece.count
      }
      #expect(found.inOrderCount <= found.commonCount)
    }
  }

  @Test func paddingIsNotQuadratic() {
    let padding = [UInt32](repeating: 0, count: 20_000)
    let found = alignment(padding, padding)
    #expect(found.commonCount == 20_000)
  }

  /// How much either has behind it does not matter: an earlier prompt may be stored in part, or with all of its answer.
  @Test(arguments: [0, 300, 6_000], [0, 300, 6_000])
  func aSmallEditIsOneWhateverFollows(newCount: UInt32, oldCount: UInt32) {
    func text(_ start: UInt32, _ count: UInt32) -> [UInt32] { (0..<count).map { start + $0 } }
    func change(_ prompt: [UInt32], _ stored: [UInt32]) -> PromptChange {
      PromptChange(
        prompt: TokenWindows(prompt, width: TokenAlignment.widthMin),
        stored: stored
      )
    }
    let (new, old) = (text(100_000, newCount), text(200_000, oldCount))
    let rest = text(1_000, 100)
    #expect(
      change([1] + rest + new, [2] + rest + old)
        == .replaced(promptCount: 1, storedCount: 1, commonCount: 100)
    )
    #expect(
      change(rest + new, text(1, 20) + rest + old)
        == .replaced(promptCount: 0, storedCount: 20, commonCount: 100)
    )
    guard case .reordered = change(rest + text(1, 20) + new, text(1, 20) + rest + old) else {
      Issue.record("two parts in another order are no edit")
      return
    }
  }

  @Test func changesAreToldApart() {
    let a = (0..<60).map { UInt32($0) }
    func change(_ prompt: [UInt32], _ stored: [UInt32]) -> PromptChange {
      PromptChange(
        prompt: TokenWindows(prompt, width: TokenAlignment.widthMin),
        stored: stored
      )
    }
    let x = (100..<110).map { UInt32($0) }
    #expect(change(x + a, a) == .replaced(promptCount: 10, storedCount: 0, commonCount: 60))
    #expect(change(a, x + a) == .replaced(promptCount: 0, storedCount: 10, commonCount: 60))
    #expect(
      change([7777] + a, x + a) == .replaced(promptCount: 1, storedCount: 10, commonCount: 60)
    )
    #expect(change(x, a) == .unrelated)
    #expect(change([], a) == .unrelated)
    #expect(change(a, []) == .unrelated)
    let b = (200..<260).map { UInt32($0) }
    #expect(change(b + a, a + b) == .reordered(movedCount: 60, commonCount: 120))
  }
}
