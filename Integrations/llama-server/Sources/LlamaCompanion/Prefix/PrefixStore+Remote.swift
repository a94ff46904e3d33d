import Glibc
import KVCore
import KVStore
import LlamaSlots

/// What the store's remote tier has of a prompt.
extension PrefixStore {
  /// Lets it bring what it has, and waits for that; not longer than the time set for it.
  ///
  /// Where only ends can be gone on from, the blocks up to the last end come, and what stands behind them.
  func waitForRemote(_ prompt: Prompt) throws {
    guard remoteWaitNanoseconds > 0 else { return }
    let start = nowNanoseconds()
    func wait(_ look: () throws -> Bool) throws {
      while try look(), nowNanoseconds() - start < remoteWaitNanoseconds { usleep(2000) }
    }
    let options: MatchOptions = [.peek, .leaveOneToken, .remote]
    guard layout.needsExactEnds else {
      return try wait { try namespace.match(prompt, options: options).isBeingFetched }
    }
    // Of an end in several pieces, how many it has depends on its length: the first is always there.
    var blockCount = 0
    try wait {
      let match = try namespace.match(prompt, with: Array(pieces.prefix(1)), options: options)[0]
      blockCount = match.blockCount
      return match.isBeingFetched
    }
    guard blockCount > 0 else { return }
    try wait { try isBeingFetched(pieces.dropFirst(), prompt, blockCount: blockCount) }
    guard layout.caches.count > 1, let parted = try partedEnd(prompt, blockCount: blockCount) else {
      return
    }
    try wait {
      var isComing = try isBeingFetched(fronts[...], prompt, blockCount: blockCount)
      for block in parted.blocks {
        let isWanted = try isBeingFetched(windows[...], prompt, blockCount: block + 1)
        isComing = isComing || isWanted
      }
      return isComing
    }
  }

  /// Whether any of these sections behind so many blocks is on its way; each is asked for.
  private func isBeingFetched(_ pieces: ArraySlice<Namespace>, _ prompt: Prompt, blockCount: Int)
    throws -> Bool
  {
    var isComing = false
    for piece in pieces {
      let words = Self.words(ofDigest: try piece.sectionDigest(prompt, blockCount: blockCount))
      let match = try Prompt.with(words) { try piece.match($0, options: [.peek, .remote]) }
      isComing = isComing || match.isBeingFetched
    }
    return isComing
  }
}
