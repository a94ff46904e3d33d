/// A textbook cache, block by block: what the store is compared with, not what it runs.
///
/// Except `lru` in tail order none of these keeps the resident set closed under prefix, so none can run in the store.
package final class ReferenceCache: ReplayCache {
  /// Which block goes first.
  package enum Policy: String, CaseIterable, Sendable {
    /// The one that was used longest ago.
    case lru
    /// The one that came first.
    case fifo
    /// The one that was used least often since it came; then as `lru`.
    case lfu
    /// As `lfu`, but of equally often used ones the deepest.
    case lena
    /// The one that is needed again last (Belady 1966): the upper bound, for it knows the future.
    case opt
  }

  /// In which order the blocks of a request are touched.
  package enum TouchOrder: String, CaseIterable, Sendable {
    /// The last block first: tails leave before heads.
    case tail
    /// The first block first.
    case head
  }

  private struct Key: Comparable {
    var major: UInt64
    var minor: UInt64
    static func < (a: Self, b: Self) -> Bool {
      a.major != b.major ? a.major < b.major : a.minor < b.minor
    }
  }

  private let policy: Policy
  private let touchOrder: TouchOrder
  private let capacity: Int
  private let future: FutureUses?
  private var numbers = BlockNumbers()
  private var resident = IndexedHeap<Key>()
  private var frequencies: [UInt32] = []
  private var ids: [Int] = []
  private var clock: UInt64 = 0
  private var requestIndex = 0
  private var storedCounts = ReplayCounts()

  /// An empty cache.
  ///
  /// - Parameters:
  ///   - policy: Which block goes first.
  ///   - touchOrder: In which order a request's blocks are touched.
  ///   - capacity: Blocks at most; nil = no bound.
  ///   - future: Of the very trace that will be handled; `opt` needs it.
  package init(
    policy: Policy,
    touchOrder: TouchOrder = .tail,
    capacity: Int?,
    future: FutureUses? = nil
  ) {
    precondition(policy != .opt || future != nil, "opt needs the future")
    self.policy = policy
    self.touchOrder = touchOrder
    self.capacity = capacity ?? .max
    self.future = future
  }

  package func handle(_ request: TraceRequest) -> Int {
    numbers.number(request.blockIDs, into: &ids)
    while frequencies.count < numbers.count { frequencies.append(0) }
    var hitCount = 0
    while hitCount < ids.count, resident.contains(ids[hitCount]) { hitCount += 1 }
    if hitCount < ids.count {
      storedCounts.unreachableBlockCount += ids[hitCount...].count { resident.contains($0) }
    }
    switch touchOrder {
    case .tail: for depth in ids.indices.reversed() { touch(depth) }
    case .head: for depth in ids.indices { touch(depth) }
    }
    while resident.count > capacity, let victim = resident.removeFirst() {
      frequencies[victim] = 0
      storedCounts.evictedBlockCount += 1
    }
    storedCounts.peakBlockCount = max(storedCounts.peakBlockCount, resident.count)
    requestIndex += 1
    return hitCount
  }

  private func touch(_ depth: Int) {
    let id = ids[depth]
    clock += 1
    let isResident = resident.contains(id)
    if !isResident { storedCounts.insertedBlockCount += 1 }
    frequencies[id] += 1
    switch policy {
    case .lru: resident.set(id, Key(major: clock, minor: 0))
    case .fifo: if !isResident { resident.set(id, Key(major: clock, minor: 0)) }
    case .lfu: resident.set(id, Key(major: UInt64(frequencies[id]), minor: clock))
    case .lena:
      let shallowness = UInt64(UInt32.max) - UInt64(depth)
      resident.set(id, Key(major: UInt64(frequencies[id]) << 32 | shallowness, minor: clock))
    case .opt:
      let next = future?.nextRequest(after: requestIndex, depth: depth) ?? .max
      resident.set(
        id,
        Key(major: .max - UInt64(next), minor: .max - UInt64(depth))
      )
    }
  }

  package var counts: ReplayCounts {
    var counts = storedCounts
    counts.residentBlockCount = resident.count
    return counts
  }
}

/// Dense numbers for the ids of a trace, in order of their first use.
struct BlockNumbers {
  private var numberOfID: [UInt64: Int32] = [:]
  private(set) var count = 0

  mutating func number(_ ids: [UInt64], into numbers: inout [Int]) {
    numbers.removeAll(keepingCapacity: true)
    for id in ids {
      let next = Int32(count)
      let number = numberOfID[id, default: next]
      if number == next {
        numberOfID[id] = next
        count += 1
      }
      numbers.append(Int(number))
    }
  }
}

/// For each block reference of a trace, which request uses the block next: 4 bytes a reference.
package struct FutureUses: Sendable {
  private var firstReference: [Int] = [0]
  private var next: [UInt32] = []

  /// Reads a whole trace.
  package init(forEachRequest: ((TraceRequest) -> Void) throws(TraceError) -> Void)
    throws(TraceError)
  {
    var numbers = BlockNumbers()
    var ids: [Int] = []
    var references: [Int32] = []
    var firstReference = [0]
    try forEachRequest { request in
      numbers.number(request.blockIDs, into: &ids)
      for id in ids { references.append(Int32(id)) }
      firstReference.append(references.count)
    }
    var next = [UInt32](repeating: .max, count: references.count)
    var nextUse = [UInt32](repeating: .max, count: numbers.count)
    for request in (0..<firstReference.count - 1).reversed() {
      for reference in firstReference[request]..<firstReference[request + 1] {
        next[reference] = nextUse[Int(references[reference])]
        nextUse[Int(references[reference])] = UInt32(request)
      }
    }
    self.firstReference = firstReference
    self.next = next
  }

  /// The request after `request` that uses its block at `depth` next; UInt32.max = none.
  func nextRequest(after request: Int, depth: Int) -> UInt32 {
    guard request + 1 < firstReference.count else { return .max }
    return next[firstReference[request] + depth]
  }
}
