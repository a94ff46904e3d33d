/// What an LRU of the same size would have found, on a sample of the blocks.
///
/// No tree: a request's blocks are used tail first, so a block is never older than what hangs on it, and what is left of a path
/// is always its head. At most `entryCountMax` blocks are held; when there are more, every other block leaves the sample.
struct RecencyShadow {
  private static let entryCountMax = 1 << 14

  private var lastUses: [UInt64: UInt64] = [:]
  /// In order of use; an entry is stale once its block was used again.
  private var queue: [(id: UInt64, use: UInt64)] = []
  private var head = 0
  private var nextUse: UInt64 = 0
  private(set) var sampleShift: UInt64 = 0

  /// Notes a request.
  ///
  /// - Parameters:
  ///   - blockIDs: Of the request's whole path.
  ///   - residentCount: How many of them were found.
  ///   - capacity: Blocks that there is room for; nil = not known yet.
  /// - Returns: of its sampled blocks, how many the shadow had, how many are among the first `residentCount`, and how many there are.
  mutating func note(
    _ blockIDs: [UInt64],
    residentCount: Int,
    capacity: Int?
  ) -> (shadow: Int, resident: Int, sampled: Int) {
    var sample: [UInt64] = []
    var resident = 0
    for (index, id) in blockIDs.enumerated() where isSampled(id) {
      sample.append(id)
      if index < residentCount { resident += 1 }
    }
    let hits = sample.firstIndex { lastUses[$0] == nil } ?? sample.count
    for id in sample.reversed() {
      lastUses[id] = nextUse
      queue.append((id, nextUse))
      nextUse += 1
    }
    if let capacity { evict(to: max(1, capacity >> Int(sampleShift))) }
    while lastUses.count > Self.entryCountMax { thin() }
    if queue.count - head > 2 * lastUses.count + 1024 || head > queue.count / 2 + 1024 {
      compact()
    }
    return (hits, resident, sample.count)
  }

  func sampledCount(_ blockCount: Int) -> Int { blockCount >> Int(sampleShift) }

  private func isSampled(_ id: UInt64) -> Bool {
    // Fibonacci hashing (Knuth): neighbouring numbers are far apart.
    (id &* 0x9E37_79B9_7F4A_7C15) >> 40 & ((1 << sampleShift) - 1) == 0
  }

  private mutating func evict(to count: Int) {
    while lastUses.count > count, head < queue.count {
      let oldest = queue[head]
      head += 1
      if lastUses[oldest.id] == oldest.use { lastUses[oldest.id] = nil }
    }
  }

  private mutating func thin() {
    sampleShift += 1
    lastUses = lastUses.filter { isSampled($0.key) }
    compact()
  }

  private mutating func compact() {
    queue = queue[head...].filter { lastUses[$0.id] == $0.use }
    head = 0
  }
}
