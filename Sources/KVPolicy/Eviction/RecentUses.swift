/// Which uses are so recent that their blocks stay, whatever these are worth: the newest 64th of the capacity.
///
/// A request that stores its blocks one by one while it runs goes on from the last one, so that has to be there still; and
/// who looks for what was just stored is not told that nobody ever comes back for such blocks. A request that is larger than this
/// part has to be worth its room at once.
package struct RecentUses {
  private static let capacityDivisor = 64
  /// Uses are told apart by so many steps of the part at most.
  private static let stepCount = 64

  /// The last use of each step, and how many blocks had come before the first one's.
  private var steps: [(stamp: UInt64, blockCount: Int)] = []
  private var firstStep = 0
  private var blockCount = 0
  /// The newest use that is not recent.
  private var boundary: UInt64 = 0

  package init() {}

  /// A use got this stamp, larger than those before; with it came the last `newBlockCount` blocks.
  package mutating func note(_ stamp: UInt64, newBlockCount: Int, capacity: Int?) {
    guard let capacity else {
      boundary = max(boundary, stamp)
      return
    }
    let before = blockCount - newBlockCount
    let stepBlockCount = Self.blockCountMax(capacity) / Self.stepCount
    if firstStep < steps.count, let last = steps.last, before - last.blockCount <= stepBlockCount {
      steps[steps.count - 1].stamp = max(last.stamp, stamp)
    } else {
      steps.append((stamp, before))
      advance(capacity)
    }
  }

  /// Blocks that stay.
  package static func blockCountMax(_ capacity: Int) -> Int { capacity / capacityDivisor }

  /// Whether blocks that this use was the last of stay.
  package func isRecent(_ stamp: UInt64) -> Bool { stamp > boundary }

  /// New blocks came.
  package mutating func noteStored(_ blockCount: Int, capacity: Int?) {
    self.blockCount += blockCount
    if let capacity { advance(capacity) }
  }

  private mutating func advance(_ capacity: Int) {
    while firstStep < steps.count,
      blockCount - steps[firstStep].blockCount > Self.blockCountMax(capacity)
    {
      boundary = max(boundary, steps[firstStep].stamp)
      firstStep += 1
    }
    if firstStep > Self.stepCount {
      steps.removeFirst(firstStep)
      firstStep = 0
    }
  }
}
