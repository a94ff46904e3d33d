/// Requests that come in pieces: an engine asks for a prompt, and stores its blocks and those of the answer later.
extension UseHistory {
  /// Notes that the path goes on: what is not known of it belongs to the request that its known part was used by last.
  package mutating func extend(_ blockIDs: [UInt64], time: Int64) {
    var knownCount = blockIDs.count
    while knownCount > 0, owner(blockIDs[knownCount - 1]) == nil { knownCount -= 1 }
    guard knownCount < blockIDs.count else { return }
    guard knownCount > 0, let before = owner(blockIDs[knownCount - 1]) else {
      _ = observe(blockIDs, residentCount: 0, time: time)
      return
    }
    let last = before - (before - firstStamp) % Self.stampsPerRequest
    let parts = Parts(stamp: last)
    if before == last { give(blockIDs[knownCount - 1], to: parts.newStamp, from: last) }
    for id in blockIDs[knownCount..<(blockIDs.count - 1)] { give(id, to: parts.newStamp) }
    give(blockIDs[blockIDs.count - 1], to: last)
    for stamp in last...parts.repeatedStamp { noteEnd(stamp, isEnd: stamp == parts.newStamp) }
  }

  /// The parts of the request that used the end of this path last: how far they reach, and their stamps; the tail first.
  package func parts(of blockIDs: [UInt64]) -> [(blockCount: Int, stamp: UInt64)] {
    var parts: [(blockCount: Int, stamp: UInt64)] = []
    var end = blockIDs.count
    while end > 0, let stamp = owner(blockIDs[end - 1]) {
      let request = (stamp - firstStamp) / Self.stampsPerRequest
      if let first = parts.first, (first.stamp - firstStamp) / Self.stampsPerRequest != request {
        break
      }
      parts.append((end, stamp))
      while end > 0, owner(blockIDs[end - 1]) == stamp { end -= 1 }
    }
    return parts
  }
}
