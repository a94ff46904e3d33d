import Glibc
import KVFile
import KVStore

/// Memory of blocks side by side, as an engine has it, filled from a seed.
///
/// Unsafe: transfers point into it, so it is lent with them; one thread uses it at a time.
@safe final class BlockMemory: @unchecked Sendable {
  let blockByteCount: Int
  let blockCount: Int
  private let memory: MappedMemory
  private let regionByteCounts: [Int]
  /// Where each region of each block is, made once: building it is no part of a call's time.
  private let spans: UnsafeMutableBufferPointer<TransferSpan>

  var byteCount: Int { blockByteCount * blockCount }

  /// With `pageSeed` the pieces lie in random order, as the pages of an engine do; they are of one size then.
  init(regionByteCounts: [Int], blockCount: Int, pageSeed: UInt64? = nil) throws {
    self.regionByteCounts = regionByteCounts
    self.blockCount = blockCount
    blockByteCount = regionByteCounts.reduce(0, +)
    memory = try MappedMemory.anonymous(
      byteCount: max(1, blockByteCount * blockCount),
      usesHugePages: true
    )
    unsafe spans = .allocate(capacity: blockCount * regionByteCounts.count)
    // Page faults are no part of what is measured.
    clear()
    resetSpans()
    if let pageSeed { shuffleSpans(pageSeed) }
  }

  deinit { unsafe spans.deallocate() }

  private func resetSpans() {
    var offset = 0
    for block in 0..<blockCount {
      for (region, count) in regionByteCounts.enumerated() {
        unsafe spans.baseAddress?.advanced(by: block * regionByteCounts.count + region)
          .initialize(
            to: TransferSpan(data: memory.pointer(at: offset), capacity: count, length: count)
          )
        offset += count
      }
    }
  }

  /// The bytes of a block whose regions lie side by side.
  func bytes(of block: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(
      start: memory.pointer(at: block * blockByteCount),
      count: blockByteCount
    )
  }

  /// Gives each piece the place of another one (Fisher and Yates).
  private func shuffleSpans(_ seed: UInt64) {
    precondition(Set(regionByteCounts).count == 1)
    var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    for index in stride(from: blockCount * regionByteCounts.count - 1, to: 0, by: -1) {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      unsafe spans.swapAt(index, Int(state % UInt64(index + 1)))
    }
  }

  /// Where a region of a block lies.
  func span(block: Int, region: Int) -> TransferSpan {
    unsafe spans[block * regionByteCounts.count + region]
  }

  /// Fills everything with words that differ from block to block and do not compress.
  func fill(seed: UInt64) {
    let words = unsafe memory.bytes.bindMemory(to: UInt64.self)
    var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    for index in 0..<words.count {
      // xorshift64: quick, and no two blocks get the same bytes.
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      unsafe words[index] = state
    }
  }

  /// Overwrites everything with one byte, so that nothing of an earlier pass can pass for restored.
  func clear() {
    guard let base = unsafe memory.pointer(at: 0) else { return }
    unsafe memset(base, 0xA5, byteCount)
  }

  /// The first of `blocks` that differs from the same block of `other`, if any.
  func firstDifference(from other: BlockMemory, in blocks: Range<Int>) -> Int? {
    blocks.first { block in
      for region in regionByteCounts.indices {
        let ours = span(block: block, region: region)
        let theirs = other.span(block: block, region: region)
        guard let oursBytes = unsafe ours.data, let theirsBytes = unsafe theirs.data else {
          return true
        }
        if unsafe memcmp(oursBytes, theirsBytes, regionByteCounts[region]) != 0 { return true }
      }
      return false
    }
  }

  /// Lends the transfer of some of the blocks, between here and the same blocks of a prompt.
  func withTransfer<Result>(
    _ blocks: Range<Int>,
    _ body: (Transfer) throws -> Result
  ) rethrows -> Result {
    let count = regionByteCounts.count
    let slice = unsafe UnsafeMutableBufferPointer(
      rebasing: spans[blocks.lowerBound * count..<blocks.upperBound * count]
    )
    let transfer = unsafe Transfer(
      firstBlock: blocks.lowerBound,
      blockCount: blocks.count,
      spans: slice
    )
    return try withExtendedLifetime(self) { try body(transfer) }
  }

  /// Copies some blocks to the same blocks of `other`, region by region: the limit of a restore from RAM.
  func copy(_ blocks: Range<Int>, to other: BlockMemory) {
    for block in blocks {
      for (region, count) in regionByteCounts.enumerated() {
        if let from = unsafe span(block: block, region: region).data,
          let to = unsafe other.span(block: block, region: region).data
        {
          unsafe memcpy(to, from, count)
        }
      }
    }
  }
}

/// Token ids at a fixed address, so that a prompt can be lent without copying.
@safe final class TokenMemory: @unchecked Sendable {
  let count: Int
  private let words: UnsafeMutablePointer<UInt32>

  /// `count` tokens that follow from the seed, each below 2^17.
  init(count: Int, seed: UInt64) {
    self.count = count
    unsafe words = .allocate(capacity: max(1, count))
    var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    for index in 0..<count {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      unsafe words[index] = UInt32(truncatingIfNeeded: state >> 40) & 0x1FFFF
    }
  }

  /// The first `count` tokens of `other`, at an address of their own.
  init(copying other: TokenMemory, count: Int) {
    self.count = min(count, other.count)
    unsafe words = .allocate(capacity: max(1, self.count))
    unsafe words.update(from: other.words, count: self.count)
  }

  /// `prefixCount` tokens of `other`, then new ones.
  convenience init(forkOf other: TokenMemory, prefixCount: Int, count: Int, seed: UInt64) {
    self.init(count: count, seed: seed)
    unsafe words.update(from: other.words, count: min(prefixCount, other.count, count))
  }

  /// The first `count` tokens of `other`, one of them changed to a value that no token has.
  convenience init(edited other: TokenMemory, at index: Int, count: Int) {
    self.init(copying: other, count: count)
    if index < self.count { unsafe words[index] = 1 << 20 }
  }

  deinit { unsafe words.deallocate() }

  /// Lends the first `count` tokens as a prompt.
  func withPrompt<Result>(_ count: Int, _ body: (Prompt) throws -> Result) rethrows -> Result {
    let prompt = unsafe Prompt(words: words, wordCount: min(count, self.count))
    return try withExtendedLifetime(self) { try body(prompt) }
  }

  /// Whether the first `count` tokens are the same: the least that a match must do.
  @inline(never)
  func equals(_ other: TokenMemory, count: Int) -> Bool {
    unsafe memcmp(words, other.words, min(count, self.count, other.count) * 4) == 0
  }
}
