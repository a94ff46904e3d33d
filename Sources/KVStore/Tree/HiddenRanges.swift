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
