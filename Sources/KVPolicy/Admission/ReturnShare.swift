/// Which part of the blocks that are offered for the first time comes back while a tier that took them all would still have them.
///
/// Measured on a sample, whether the blocks were admitted or not.
struct ReturnShare: Sendable {
  /// Below it most of what is written is written for nothing (docs/decisions/0007-admission.md).
  private static let shareMin = 1.0 / 6

  private let keyCountMax: Int
  /// How many came first before each did, in two generations; -1 = it has come back.
  private var newer: [UInt64: Int] = [:]
  private var older: [UInt64: Int] = [:]
  private var number = 0
  private var firstCount = 0.0
  private var returnedCount = 0.0

  init(keyCountMax: Int) { self.keyCountMax = max(2, keyCountMax) }

  var isWorthWriting: Bool { firstCount >= 16 && returnedCount > firstCount * Self.shareMin }

  mutating func note(_ keys: [UInt64], _ offer: Admission.Offer) {
    for key in offer.storedKeys { noteReturn(key, offer.tierBlockCount) }
    for key in keys where Admission.isSampled(key) {
      if noteReturn(key, offer.tierBlockCount) { continue }
      if newer.count >= keyCountMax / 2 {
        older = newer
        newer = [:]
      }
      newer[key] = number
      number += 1
      firstCount += 1
    }
    // What was measured before fades as the tier's contents do.
    if firstCount > Double(max(256, offer.tierBlockCount / Admission.sampling)) {
      firstCount /= 2
      returnedCount /= 2
    }
  }

  /// Counts the first return only; false when the block is new.
  @discardableResult
  private mutating func noteReturn(_ key: UInt64, _ tierBlockCount: Int) -> Bool {
    guard let first = newer[key] ?? older[key] else { return false }
    if first >= 0, number - first <= tierBlockCount / Admission.sampling { returnedCount += 1 }
    if newer[key] != nil { newer[key] = -1 } else { older[key] = -1 }
    return true
  }
}
