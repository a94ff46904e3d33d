internal import KVCatalog
internal import KVCore

/// Blocks that no look-up brings back while their removal is on its way: from a position of a run on.
///
/// A range may be hidden more than once, and is as long as one of those lasts.
struct HiddenRanges {
  private var firsts: [RunID: [UInt32]] = [:]

  var isEmpty: Bool { firsts.isEmpty }

  func covers(_ position: BlockPosition) -> Bool {
    guard !firsts.isEmpty, let firsts = firsts[position.run] else { return false }
    return firsts.contains { $0 <= position.position }
  }

  func contains(_ range: RemovedRange) -> Bool {
    firsts[range.run]?.contains(range.firstPosition) ?? false
  }

  mutating func insert(_ range: RemovedRange) {
    firsts[range.run, default: []].append(range.firstPosition)
  }

  mutating func remove(_ range: RemovedRange) {
    guard let index = firsts[range.run]?.firstIndex(of: range.firstPosition) else { return }
    firsts[range.run]?.remove(at: index)
    if firsts[range.run]?.isEmpty == true { firsts[range.run] = nil }
  }
}

extension StoreCore {
  /// Ranges that are gone through under one pass of the state lock, however many a removal has.
  private static let hiddenCountMax = 256

  /// Hides what a transaction is about to remove and takes it out of the index, some at a time; on the writer's thread.
  ///
  /// Leaves come first, so that what is left in between is closed under prefix. `mayHide` sees the state that each piece is hidden in: after it
  /// has refused one, none of them is hidden any more.
  func hide(
    _ ranges: [RemovedRange],
    if mayHide: (ArraySlice<RemovedRange>, StoreState) -> Bool = { _, _ in true }
  ) -> Bool {
    var next = 0
    while next < ranges.count {
      let piece = ranges[next..<min(next + Self.hiddenCountMax, ranges.count)]
      let isHidden = state.withLock { state in
        guard mayHide(piece, state) else { return false }
        for range in piece {
          state.hidden.insert(range)
          state.removeFromIndex(range)
        }
        return true
      }
      guard isHidden else {
        showHidden()
        return false
      }
      hiddenByWriter.withLock { $0 += piece }
      next = piece.endIndex
    }
    return true
  }

  /// The removal is committed, or was not to be: the catalog tells what there is.
  func showHidden() {
    let ranges = hiddenByWriter.withLock { ranges in
      defer { ranges = [] }
      return ranges
    }
    var next = 0
    while next < ranges.count {
      let piece = ranges[next..<min(next + Self.hiddenCountMax, ranges.count)]
      state.withLock { state in
        // A loader may have read the rows before the commit and enter them after.
        state.removalEpoch += 1
        for range in piece { state.hidden.remove(range) }
      }
      next = piece.endIndex
    }
    if !ranges.isEmpty { state.notifyAll() }
  }
}
