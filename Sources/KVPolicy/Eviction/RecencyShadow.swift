/// What an LRU of the same size would hold, known from the stamps of the uses alone.
///
/// LRU keeps what was used last, and of one request's blocks the head longest: all blocks of the uses behind a boundary, and
/// the first ones of the use at the boundary.
struct RecencyShadow {
  private var boundary: UInt64 = 0
  private var boundaryCount = 0
  private var heldCount = 0

  /// Blocks at the head of what belongs to a use go to a newer one; returns how many of them LRU has.
  mutating func take(_ blockCount: Int, from stamp: UInt64) -> Int {
    guard stamp >= boundary else { return 0 }
    let count = stamp == boundary ? min(blockCount, boundaryCount) : blockCount
    if stamp == boundary { boundaryCount -= count }
    heldCount -= count
    return count
  }

  /// Blocks come to a use.
  mutating func add(_ blockCount: Int, to stamp: UInt64) {
    guard stamp >= boundary else { return }
    if stamp == boundary { boundaryCount += blockCount }
    heldCount += blockCount
  }

  /// Lets the oldest go; `count` answers the blocks of a use, up to the use `newest`.
  mutating func evict(to capacity: Int, newest: UInt64, _ count: (UInt64) -> Int) {
    while heldCount > capacity {
      let over = min(heldCount - capacity, boundaryCount)
      boundaryCount -= over
      heldCount -= over
      guard heldCount > capacity, boundary < newest else { return }
      boundary += 1
      boundaryCount = count(boundary)
    }
  }

  /// Uses before this stamp are forgotten.
  mutating func forget(before firstStamp: UInt64, _ count: (UInt64) -> Int) {
    while boundary < firstStamp {
      heldCount -= boundaryCount
      boundary += 1
      boundaryCount = count(boundary)
    }
  }
}
