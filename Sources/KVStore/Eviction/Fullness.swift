internal import KVCore

/// Where the store has no room: so that it says so at once, and admission knows that something has to leave.
struct Fullness {
  /// Eviction pools in which nothing could be evicted just now, and until when offloads hear so.
  private var heldUntil: [UInt32: UInt64] = [:]
  /// Slot sizes for which something had to leave.
  private var fullSizes: Set<Int> = []

  /// For how long offloads are refused after the writer has found nothing to evict; then one may try again.
  private static let heldNanoseconds: UInt64 = 1_000_000_000

  /// Leases and pins keep all of a pool.
  mutating func noteHeld(pool: UInt32) {
    heldUntil[pool] = deadline(after: Self.heldNanoseconds)
  }

  mutating func isHeld(pool: UInt32) -> Bool {
    guard let until = heldUntil[pool] else { return false }
    if monotonicNanoseconds() < until { return true }
    heldUntil[pool] = nil
    return false
  }

  /// A lease or a pin has ended.
  mutating func noteRelease() {
    if !heldUntil.isEmpty { heldUntil = [:] }
  }

  mutating func noteFull(slotByteCount: Int) { fullSizes.insert(slotByteCount) }

  func isFull(slotByteCount: Int) -> Bool { fullSizes.contains(slotByteCount) }
}
