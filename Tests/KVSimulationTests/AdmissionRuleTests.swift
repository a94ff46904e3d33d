import KVCore
import KVPolicy
import Testing

/// What the adaptive rule makes of what comes back.
@Suite struct AdmissionRuleTests {
  private static let tierBlockCount = 1000

  /// Offers `count` new chains of 16 blocks to a full tier, each once more after `lag` others; returns how many of the last hundred
  /// were admitted when they came first.
  private func admittedAtFirst(lag: Int) -> Int {
    var admission = Admission(.adaptive, keyCountMax: 1 << 16)
    let offer = Admission.Offer(
      blockByteCount: 1,
      storedBlockCount: 0,
      isFull: true,
      tierBlockCount: Self.tierBlockCount
    )
    func chain(_ number: Int) -> [UInt64] { (0..<16).map { UInt64(number * 16 + $0) } }
    var count = 0
    for number in 0..<1000 {
      let isWhole = admission.admit(chain(number), offer, now: 0) == 16
      if number >= 900, isWhole { count += 1 }
      if number >= lag { _ = admission.admit(chain(number - lag), offer, now: 0) }
    }
    return count
  }

  @Test func whatComesBackInTimeIsWorthWriting() {
    #expect(admittedAtFirst(lag: 5) == 100)
  }

  @Test func whatComesBackTooLateIsNot() {
    #expect(admittedAtFirst(lag: 100) == 0)
    #expect(admittedAtFirst(lag: .max) == 0)
  }

  /// Of stored blocks the engine offers only what is behind them: their return counts all the same.
  @Test func returnsOfStoredBlocksCount() {
    var admission = Admission(.adaptive, keyCountMax: 1 << 16)
    var offer = Admission.Offer(
      blockByteCount: 1,
      storedBlockCount: 0,
      isFull: true,
      tierBlockCount: Self.tierBlockCount
    )
    var next: UInt64 = 0
    for _ in 0..<100 {
      let keys = (0..<16).map { next + $0 }
      next += 16
      _ = admission.admit(keys, offer, now: 0)
      offer.storedBlockCount = 1
      offer.storedKeys = keys.filter(Admission.isSampled)
    }
    offer.storedKeys = []
    #expect(admission.admit((0..<16).map { next + $0 }, offer, now: 0) == 16)
  }

  @Test func aPromptOfWhichTwoThirdsAreKnownIsTakenWhole() {
    var admission = Admission(.adaptive, keyCountMax: 1 << 16)
    var offer = Admission.Offer(
      blockByteCount: 1,
      storedBlockCount: 7,
      isFull: true,
      tierBlockCount: Self.tierBlockCount
    )
    #expect(admission.admit([1, 2, 3, 4], offer, now: 0) == 0)
    // Stored or offered before is the same: 7 + 4 of 11 + 5.
    #expect(admission.admit([1, 2, 3, 4, 5, 6, 7, 8, 9], offer, now: 0) == 9)
    offer.storedBlockCount = 8
    #expect(admission.admit([11, 12, 13, 14], offer, now: 0) == 4)
  }
}
