public import KVCore
public import KVStore

extension Namespace {
  /// The payloads of a path's blocks, verified, as far as they are stored: the regions of each, side by side.
  public func payloads(of words: [UInt32]) throws(StoreError) -> [[UInt8]] {
    let batch = BlockBatch(identity)
    let count = words.count / core.wordsPerBlock
    var found: [[UInt8]] = []
    while found.count < count {
      let transfer = batch.transfer(
        firstBlock: found.count,
        blockCount: min(batch.capacity, count - found.count)
      )
      let restored = try Prompt.with(words) { (prompt) throws(StoreError) in
        try restore(prompt, transfer)
      }
      for index in 0..<restored.doneBlockCount { found.append(batch.payload(ofBlock: index).bytes) }
      guard restored.doneBlockCount == transfer.blockCount else { break }
    }
    return found
  }

  /// Stores blocks of one region each as the last ones of a path, whose others are stored; false where one is not taken.
  public func store(
    _ payloads: [[UInt8]],
    of words: [UInt32],
    timeToLive: TimeToLive?,
    priority: UInt8?
  ) throws(StoreError) -> Bool {
    let batch = BlockBatch(identity)
    let first = words.count / core.wordsPerBlock - payloads.count
    guard first >= 0, payloads.allSatisfy({ $0.count <= identity.regionByteCounts[0] }) else {
      return false
    }
    var doneCount = 0
    while doneCount < payloads.count {
      let next = payloads[doneCount..<min(payloads.count, doneCount + batch.capacity)]
      for (index, payload) in next.enumerated() {
        batch.setPayload(ofBlock: index, payload, from: 0, [payload.count])
      }
      var transfer = batch.transfer(firstBlock: first + doneCount, blockCount: next.count)
      transfer.timeToLive = timeToLive
      transfer.priority = priority
      let outcome = try Prompt.with(words) { (prompt) throws(StoreError) in
        try offload(prompt, transfer)
      }
      guard outcome.outcomes.allSatisfy({ $0 == .done }) else { return false }
      doneCount += next.count
    }
    return true
  }
}
