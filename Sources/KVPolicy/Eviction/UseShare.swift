/// Whether this process sees nearly all uses of the store: the catalog's use counter tells what others gave stamps to.
///
/// Who sees a part only takes blocks for unused that others come back for all the time.
package struct UseShare {
  private var ownCount = 0
  private var otherCount = 0
  /// The use counter after this process's last transaction.
  private var last: UInt64?

  private static let countMax = 1 << 16
  /// One use of others for each of so many of its own does no harm.
  private static let ownPerOther = 8

  package init() {}

  package var isNearlyAll: Bool { otherCount * Self.ownPerOther <= ownCount }

  /// A transaction of this process was committed, which found the use counter at `begin` and left it at `end`.
  ///
  /// - Parameters:
  ///   - begin: What others counted is each block that they stored, and each use.
  ///   - end: As `begin`.
  ///   - useCount: Uses in the transaction, blocks that were stored not counted.
  package mutating func note(from begin: UInt64, to end: UInt64, useCount: Int) {
    if let last, begin > last { otherCount += Int(clamping: begin - last) }
    ownCount += useCount
    last = end
    while ownCount + otherCount > Self.countMax {
      ownCount /= 2
      otherCount /= 2
    }
  }
}
