/// Slots that views and reservations hold for as long as their users like.
struct HostLending {
  /// How many users each slot is lent to.
  var userCounts: [HostSlot: Int] = [:]
  /// Lent slots of each chunk, by its first page.
  var chunkCounts: [Int: Int] = [:]
  var pageCount = 0
  /// Of the chunks that have a lent slot: none of them can be given to another size.
  var chunkPageCount = 0
}

extension HostArena {
  /// Bytes of the slots that are lent.
  package var lentByteCount: Int { lending.pageCount * 4096 }

  /// Counts a pinned slot as lent; false when too little of the arena would stay for offloads and restores.
  ///
  /// Half of the bytes at most, and chunks of three quarters: with a slot of each chunk lent, another slot size could get none.
  package func lend(_ slot: HostSlot) -> Bool {
    guard let chunk = chunk(containing: Int(slot.rawValue)) else { return false }
    if let count = lending.userCounts[slot] {
      lending.userCounts[slot] = count + 1
      return true
    }
    let slotPages = chunk.slotByteCount / 4096
    let isNewChunk = lending.chunkCounts[chunk.firstPage] == nil
    let chunkPages = lending.chunkPageCount + (isNewChunk ? chunk.pageCount : 0)
    guard 2 * (lending.pageCount + slotPages) <= pageCount, 4 * chunkPages <= 3 * pageCount else {
      return false
    }
    lending.userCounts[slot] = 1
    lending.chunkCounts[chunk.firstPage, default: 0] += 1
    lending.pageCount += slotPages
    lending.chunkPageCount = chunkPages
    return true
  }

  /// One user less; its pin is still to be ended.
  package func endLoan(_ slot: HostSlot) {
    guard let count = lending.userCounts[slot], let chunk = chunk(containing: Int(slot.rawValue))
    else { return assertionFailure("end of a loan that never was") }
    guard count == 1 else {
      lending.userCounts[slot] = count - 1
      return
    }
    lending.userCounts[slot] = nil
    lending.pageCount -= chunk.slotByteCount / 4096
    let left = (lending.chunkCounts[chunk.firstPage] ?? 1) - 1
    lending.chunkCounts[chunk.firstPage] = left == 0 ? nil : left
    if left == 0 { lending.chunkPageCount -= chunk.pageCount }
  }
}
