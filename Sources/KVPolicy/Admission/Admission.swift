package import KVCore

/// Which new blocks are worth writing to disk: most blocks of a trace are used once, and each write wears an SSD.
///
/// Decided for a chain, from its first block that is not stored on: a block is of no use without those before it. Not thread-safe: its owner
/// holds a lock. See docs/decisions/0007-admission.md for what each policy does on the published traces.
package struct Admission: Sendable {
  /// What is known of the blocks that are offered.
  package struct Offer: Sendable {
    /// Bytes that writing one of them takes.
    package var blockByteCount: Int
    /// Blocks before the first one, all of them stored.
    package var storedBlockCount: Int
    /// 64 bits of the keys of those that `isSampled` picks.
    package var storedKeys: [UInt64]
    /// Something would have to leave for them.
    package var isFull: Bool
    /// Blocks that the tier holds when it is full.
    package var tierBlockCount: Int

    package init(
      blockByteCount: Int,
      storedBlockCount: Int,
      storedKeys: [UInt64] = [],
      isFull: Bool,
      tierBlockCount: Int
    ) {
      self.blockByteCount = blockByteCount
      self.storedBlockCount = storedBlockCount
      self.storedKeys = storedKeys
      self.isFull = isFull
      self.tierBlockCount = tierBlockCount
    }
  }

  /// Whether a block counts for the share of blocks that come back: one in eight does.
  package static func isSampled(_ key: UInt64) -> Bool { key % UInt64(sampling) == 0 }
  static let sampling = 8

  private let policy: AdmissionPolicy
  private let writeBytesPerDay: Int
  private var seen: RecentKeys
  private var returns: ReturnShare
  /// Bytes that may be written now.
  private var credit: Double
  private var creditTime: UInt64?

  /// - Parameters:
  ///   - policy: what is admitted.
  ///   - writeBytesPerDay: the most that is admitted in a day, in the mean; up to a 24th of it at once. 0 = no bound.
  ///   - keyCountMax: offered keys that are remembered, about 40 bytes each.
  package init(_ policy: AdmissionPolicy, writeBytesPerDay: Int = 0, keyCountMax: Int = 1 << 18) {
    self.policy = policy
    self.writeBytesPerDay = writeBytesPerDay
    credit = Double(writeBytesPerDay) / 24
    seen = RecentKeys(countMax: keyCountMax)
    returns = ReturnShare(keyCountMax: keyCountMax / Self.sampling)
  }

  /// Whether there is anything to decide.
  package var isTrivial: Bool { policy == .always && writeBytesPerDay == 0 }

  /// How many of a chain's blocks are admitted, from the first on; notes those that are not.
  ///
  /// - Parameters:
  ///   - keys: 64 bits of the key of each block that is not stored.
  ///   - offer: of them.
  ///   - now: nanoseconds of any clock that does not go back.
  /// - Returns: from 0 to the number of keys.
  package mutating func admit(_ keys: [UInt64], _ offer: Offer, now: UInt64) -> Int {
    var count = keys.count
    if policy != .always { count = keys.firstIndex { !seen.contains($0) } ?? keys.count }
    if policy == .adaptive {
      returns.note(keys, offer)
      // A prompt of which two thirds are known is one that goes on: a conversation, not a document that is read once.
      let isKnown = offer.storedBlockCount + count >= 2 * (keys.count - count)
      if !offer.isFull || isKnown || returns.isWorthWriting { count = keys.count }
    }
    count = min(count, affordableCount(offer.blockByteCount, now: now))
    credit -= Double(count) * Double(offer.blockByteCount)
    if policy != .always { for key in keys[count...] { seen.insert(key) } }
    return count
  }

  /// Spends bytes for what need not be written; false when there are not as many.
  package mutating func maySpend(_ byteCount: Int, now: UInt64) -> Bool {
    guard affordableCount(byteCount, now: now) > 0 else { return false }
    credit -= Double(byteCount)
    return true
  }

  /// Bytes that may be written now; nil without a bound.
  package func affordableByteCount(now: UInt64) -> Int? {
    var copy = self
    return writeBytesPerDay == 0 ? nil : copy.affordableCount(1, now: now)
  }

  private mutating func affordableCount(_ byteCount: Int, now: UInt64) -> Int {
    guard writeBytesPerDay > 0, byteCount > 0 else { return .max }
    let perDay = Double(writeBytesPerDay)
    let elapsed = Double(now - min(creditTime ?? now, now)) / 86_400e9
    creditTime = now
    credit = min(credit + elapsed * perDay, perDay / 24)
    return max(0, Int(credit / Double(byteCount)))
  }
}

/// The keys that came last, in two generations: when the newer one is full it becomes the older.
private struct RecentKeys: Sendable {
  private let countMax: Int
  private var newer: Set<UInt64> = []
  private var older: Set<UInt64> = []

  init(countMax: Int) { self.countMax = max(2, countMax) }

  func contains(_ key: UInt64) -> Bool { newer.contains(key) || older.contains(key) }

  mutating func insert(_ key: UInt64) {
    if newer.count >= countMax / 2 {
      older = newer
      newer = []
    }
    newer.insert(key)
  }
}
