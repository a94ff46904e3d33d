internal import KVCore
internal import KVIndex

// Unsafe: lends the ids of a request to the index by pointer.

/// Hits over capacity and over TTL from one pass over a trace: exact for LRU, at each capacity and TTL that was asked for.
///
/// A block hits in a tier of C blocks if its *stack distance*, the number of blocks that were used since its own last use, itself
/// included, is at most C (Mattson et al. 1970), and under a TTL if it is also young enough: what expires is the bottom of
/// the stack. Blocks of one request lie in the stack head first, so a request is handled in runs: those stretches of its path
/// that one earlier request used last.
package final class HitCurves {
  /// A stretch of a node from the block behind the one before up to `end`, and who used it last.
  private struct Stretch {
    var end: UInt32
    var request: Int
  }

  private static let namespace = NamespaceID(rawValue: 1)
  private static let wordsPerBlock = 2
  private let index = PrefixIndex(fingerprintSeed: 0x6B76_7374_6F72_65)
  private var segments: [IndexSegment] = []
  private var runs: [Run] = []
  /// By node, from its head on; a use repaints a prefix.
  private var stretches: [[Stretch]] = []
  /// Blocks by the request that used them last.
  private var lastUses = PrefixSums()
  private var times: [Int64] = []
  private var now: Int64 = 0

  /// Ascending.
  package let capacities: [Int]
  /// Ascending.
  package let ttls: [Int64]
  /// Hits by the first TTL that is long enough (one more for none), then by the first capacity that is large enough.
  private var cells: [Hits]

  /// Hits in blocks and tokens.
  package struct Hits: Equatable, Sendable {
    package var blockCount = 0
    package var tokenCount = 0

    package init() {}
  }

  package private(set) var requestCount = 0
  package private(set) var blockCount = 0
  package private(set) var tokenCount = 0
  /// Different blocks: what an unlimited tier holds in the end.
  package var uniqueBlockCount: Int { index.statistics.blockCount }

  /// No requests yet; the capacities are in blocks, the TTLs in milliseconds.
  package init(capacities: [Int], ttlMilliseconds: [Int64]) {
    self.capacities = Set(capacities).sorted()
    ttls = Set(ttlMilliseconds).sorted()
    cells = Array(
      repeating: Hits(),
      count: (self.capacities.count + 1) * (ttls.count + 1)
    )
    index.addNamespace(Self.namespace, wordsPerBlock: Self.wordsPerBlock)
  }

  /// Hits in a tier of the `capacity`-th size under the `ttl`-th TTL; nil = unlimited.
  package func hits(capacity: Int?, ttl: Int?) -> Hits {
    var sum = Hits()
    for row in 0...(ttl ?? ttls.count) {
      for column in 0...(capacity ?? capacities.count) {
        let cell = cells[row * (capacities.count + 1) + column]
        sum.blockCount += cell.blockCount
        sum.tokenCount += cell.tokenCount
      }
    }
    return sum
  }

  /// Takes the next request of the trace.
  package func add(_ request: TraceRequest) {
    now = max(now, request.timestampMilliseconds)
    requestCount += 1
    blockCount += request.blockIDs.count
    tokenCount += request.inputTokenCount
    times.append(now)
    lastUses.append(0)
    unsafe request.blockIDs.span.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      unsafe add(request, words: base.assumingMemoryBound(to: UInt32.self))
    }
  }

  private func add(_ request: TraceRequest, words: UnsafePointer<UInt32>) {
    let blockCount = request.blockIDs.count
    let match = unsafe index.match(
      Self.namespace,
      words: words,
      blockCount: blockCount,
      touch: false,
      segments: &segments
    )
    runs.removeAll(keepingCapacity: true)
    var run = Run(firstBlock: 0, blockCount: 0, request: -1)
    for segment in segments {
      var local: UInt32 = 0
      for stretch in stretches[Int(segment.node.rawValue)] {
        let end = min(stretch.end, segment.blockCount)
        if end <= local { break }
        if stretch.request != run.request {
          runs.append(run)
          run = Run(
            firstBlock: run.firstBlock + run.blockCount,
            blockCount: 0,
            request: stretch.request
          )
        }
        run.blockCount += Int(end - local)
        local = end
      }
    }
    runs.append(run)
    for run in runs where run.blockCount > 0 { count(run, of: request) }
    // Only now: all of a request is looked up before any of it counts as used.
    for run in runs where run.blockCount > 0 { lastUses.add(run.request, -run.blockCount) }
    for segment in segments { paint(Int(segment.node.rawValue), segment.blockCount) }
    var end = match.location
    for block in match.matchedBlockCount..<blockCount {
      guard
        let added = unsafe index.append(
          Self.namespace,
          after: end,
          words: words + block * Self.wordsPerBlock,
          entry: IndexEntry(blockKey: BlockKey(high: 0, low: 0))
        )
      else { return assertionFailure("the parent is there") }
      end = added.location
      extend(Int(end.node.rawValue), to: end.local + 1)
    }
    lastUses.add(requestCount - 1, blockCount)
  }

  /// Consecutive blocks of a request's path that one request used last.
  private struct Run {
    var firstBlock: Int
    var blockCount: Int
    var request: Int
  }

  private func count(_ run: Run, of request: TraceRequest) {
    let above = lastUses.total - lastUses.sum(through: run.request)
    let age = now - times[run.request]
    let row = Self.firstIndex(ttls, age) * (capacities.count + 1)
    var column = Self.firstIndex(capacities, above + 1)
    var done = 0
    while done < run.blockCount {
      let reach = column < capacities.count ? capacities[column] - above : .max
      let end = min(run.blockCount, reach)
      if end > done {
        let first = run.firstBlock + done
        cells[row + column].blockCount += end - done
        cells[row + column].tokenCount +=
          request.tokenCount(ofBlocks: run.firstBlock + end) - request.tokenCount(ofBlocks: first)
        done = end
      }
      column += 1
    }
  }

  /// The index of the first element that is at least `value`.
  private static func firstIndex<T: Comparable>(_ sorted: [T], _ value: T) -> Int {
    var low = 0
    var high = sorted.count
    while low < high {
      let middle = (low + high) / 2
      if sorted[middle] < value { low = middle + 1 } else { high = middle }
    }
    return low
  }

  // MARK: Who used a block last

  /// This request uses the first `count` blocks of a node.
  private func paint(_ node: Int, _ count: UInt32) {
    let kept = stretches[node].firstIndex { $0.end > count } ?? stretches[node].count
    stretches[node].replaceSubrange(
      0..<kept,
      with: CollectionOfOne(Stretch(end: count, request: requestCount - 1))
    )
  }

  /// A block was added to the end of a node.
  private func extend(_ node: Int, to end: UInt32) {
    while stretches.count <= node { stretches.append([]) }
    if let last = stretches[node].indices.last, stretches[node][last].request == requestCount - 1 {
      stretches[node][last].end = end
    } else {
      stretches[node].append(Stretch(end: end, request: requestCount - 1))
    }
  }
}

/// Sums over the first numbers of a growing list (Fenwick 1994).
struct PrefixSums {
  private var tree: [Int] = [0]
  private(set) var total = 0

  mutating func append(_ value: Int) {
    let index = tree.count
    var sum = value
    // The node covers the `index & -index` values up to this one.
    var child = index - 1
    let first = index - (index & -index)
    while child > first {
      sum += tree[child]
      child -= child & -child
    }
    tree.append(sum)
    total += value
  }

  mutating func add(_ position: Int, _ value: Int) {
    var index = position + 1
    while index < tree.count {
      tree[index] += value
      index += index & -index
    }
    total += value
  }

  func sum(through position: Int) -> Int {
    var index = position + 1
    var sum = 0
    while index > 0 {
      sum += tree[index]
      index -= index & -index
    }
    return sum
  }
}
