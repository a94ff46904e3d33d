internal import KVCatalog
internal import KVCore

/// Takes what a transaction is about to remove out of the index, and hides it until the commit is through or given up.
///
/// On the writer's thread; one removal at a time.
final class PendingRemoval: Sendable {
  private let state: Monitor<StoreState>
  private let hidden = Monitor<[RemovedRange]>([])

  /// Ranges that are gone through under one pass of the state lock, however many a removal has.
  private static let rangeCountMax = 256

  init(_ state: Monitor<StoreState>) { self.state = state }

  /// Hides ranges, some at a time.
  ///
  /// Leaves come first, so that what is left in between is closed under prefix. `mayHide` sees the tree that each piece is hidden in:
  /// after it has refused one, none of them is hidden any more.
  func hide(
    _ ranges: [RemovedRange],
    if mayHide: (ArraySlice<RemovedRange>, PrefixTree) -> Bool = { _, _ in true }
  ) -> Bool {
    var next = 0
    while next < ranges.count {
      let piece = ranges[next..<min(next + Self.rangeCountMax, ranges.count)]
      let isHidden = state.withLock { state in
        guard mayHide(piece, state.tree) else { return false }
        for range in piece { state.tree.hide(range) }
        return true
      }
      guard isHidden else {
        reveal()
        return false
      }
      hidden.withLock { $0 += piece }
      next = piece.endIndex
    }
    return true
  }

  /// The removal is committed, or was not to be: the catalog tells what there is.
  func reveal() {
    let ranges = hidden.withLock { ranges in
      defer { ranges = [] }
      return ranges
    }
    var next = 0
    while next < ranges.count {
      let piece = ranges[next..<min(next + Self.rangeCountMax, ranges.count)]
      state.withLock { $0.tree.reveal(piece) }
      next = piece.endIndex
    }
    if !ranges.isEmpty { state.notifyAll() }
  }
}
