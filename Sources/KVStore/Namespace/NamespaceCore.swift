internal import KVCodec
package import KVCore

/// What every call on a namespace needs, fixed when it is opened.
package final class NamespaceCore: Sendable {
  let id: NamespaceID
  let identity: NamespaceIdentity
  /// The identity's canonical record.
  package let record: [UInt8]
  package let chain: KeyChain
  let layout: SlotLayout
  /// Payloads are in the catalog.
  let isInline: Bool
  let expiry = NamespaceExpiry()
  /// All regions of every block; one for all transfers, so that none allocates it.
  let wholeBlocks: RegionSelection
  /// Of side sections: the identity of the namespace beside whose blocks they stand, once a handle on them was opened.
  let sectionOwner = Monitor<NamespaceIdentity?>(nil)

  init(
    id: NamespaceID,
    identity: NamespaceIdentity,
    record: [UInt8],
    chain: KeyChain,
    layout: SlotLayout,
    isInline: Bool
  ) {
    self.id = id
    self.identity = identity
    self.record = record
    self.chain = chain
    self.layout = layout
    self.isInline = isInline
    wholeBlocks = RegionSelection(0..<identity.regionByteCounts.count)
  }

  package var wordsPerBlock: Int { chain.wordsPerBlock }
  var regionCount: Int { identity.regionByteCounts.count }
  var promptForm: PromptForm {
    PromptForm(
      identityMode: identity.identityMode,
      digestByteCount: identity.digestByteCount
    )
  }

  /// The eviction pool, as `stamps` numbers it.
  var pool: UInt32 { isInline ? 0 : SizeClass.number(slotByteCount: layout.slotByteCount) }

  /// Which blocks and regions of a prompt a transfer moves; checked.
  @safe struct Range {
    var blocks: Swift.Range<Int>
    var regions: Swift.Range<Int>
    /// Restore: those of them that are needed.
    var selection: RegionSelection
    let spans: UnsafeMutableBufferPointer<TransferSpan>
    var coversAllRegions: Bool
    /// Offload: nil = the namespace's default.
    var timeToLive: TimeToLive?
    /// Offload: nil = the default.
    var priority: UInt8?

    /// Index in `spans` of a block's first region of the range.
    func spanIndex(ofBlock block: Int) -> Int { (block - blocks.lowerBound) * regions.count }

    /// What is not needed of a block has no bytes.
    func clearLengths(ofBlock block: Int) {
      let first = spanIndex(ofBlock: block)
      for index in first..<first + regions.count { unsafe spans[index].length = 0 }
    }
  }

  func check(_ prompt: Prompt, wholeBlocks: Bool) throws(StoreError) {
    if wholeBlocks, prompt.wordCount == 0 { throw .invalidArgument(.noTokens) }
    if wholeBlocks, prompt.wordCount % wordsPerBlock != 0 {
      throw .invalidArgument(.tokensNotWholeBlocks)
    }
    // Those of a last block that is not full are looked at when it is.
    guard unsafe prompt.extra.count <= (prompt.wordCount + wordsPerBlock - 1) / wordsPerBlock else {
      throw .invalidArgument(.extraCount)
    }
    for index in unsafe prompt.extra.indices {
      guard unsafe prompt.extra[index].count <= identity.extraByteCountMax else {
        throw .invalidArgument(.extraByteCount)
      }
    }
  }

  func blockCount(of prompt: Prompt) -> Int { prompt.wordCount / wordsPerBlock }

  /// The most blocks that a match with these options finds.
  func matchBlockCount(of prompt: Prompt, _ options: MatchOptions) -> Int {
    let blockCount = blockCount(of: prompt)
    // In digest mode a block stands for its tokens: at least one block stays to be computed.
    let leavesOne =
      options.contains(.leaveOneToken) && blockCount * wordsPerBlock == prompt.wordCount
    return leavesOne ? blockCount - 1 : blockCount
  }

  /// A full block of the prompt.
  func block(_ index: Int, of prompt: Prompt) -> PromptBlock? {
    prompt.block(index, wordCount: wordsPerBlock)
  }

  func keys(of prompt: Prompt) -> [BlockKey] {
    var keys: [BlockKey] = []
    keys.reserveCapacity(blockCount(of: prompt))
    var cursor = ChainCursor(chain, prompt)
    while let link = cursor.next() { keys.append(link.key) }
    return keys
  }

  /// The range that a transfer means, checked; its spans as well, unless they are not looked at.
  func range(
    of transfer: Transfer,
    in prompt: Prompt,
    checksSpans: Bool = true
  ) throws(StoreError) -> Range {
    let available = blockCount(of: prompt)
    guard transfer.firstBlock >= 0, transfer.firstBlock < available, transfer.blockCount >= 0,
      transfer.firstBlock + transfer.blockCount <= available
    else { throw .invalidArgument(.blockRange) }
    let lastBlock =
      transfer.blockCount == 0 ? available : transfer.firstBlock + transfer.blockCount
    guard transfer.firstRegion >= 0, transfer.firstRegion < regionCount, transfer.regionCount >= 0,
      transfer.firstRegion + transfer.regionCount <= regionCount
    else { throw .invalidArgument(.regionRange) }
    let lastRegion =
      transfer.regionCount == 0 ? regionCount : transfer.firstRegion + transfer.regionCount
    let prefixBlockCount =
      transfer.prefixBlockCount == 0 ? lastBlock : transfer.prefixBlockCount
    guard (lastBlock...available).contains(prefixBlockCount) else {
      throw .invalidArgument(.prefixBlockCount)
    }
    let regions = transfer.firstRegion..<lastRegion
    let range = unsafe Range(
      blocks: transfer.firstBlock..<lastBlock,
      regions: regions,
      selection: selection(regions, prefixBlockCount, transfer.ignoresWindows),
      spans: transfer.spans,
      coversAllRegions: lastRegion - transfer.firstRegion == regionCount,
      timeToLive: transfer.timeToLive,
      priority: transfer.priority
    )
    guard range.priority ?? 0 <= 100 else { throw .invalidArgument(.priority) }
    guard checksSpans else { return range }
    guard unsafe transfer.spans.count == range.blocks.count * range.regions.count else {
      throw .invalidArgument(.spanCount)
    }
    for index in unsafe transfer.spans.indices {
      let span = unsafe transfer.spans[index]
      guard unsafe span.data != nil || (span.capacity == 0 && span.length == 0) else {
        throw .invalidArgument(.spanNull)
      }
      guard span.capacity >= 0, span.length >= 0 else { throw .invalidArgument(.spanLength) }
    }
    return range
  }

  /// All regions of some blocks, for a transfer that is not between the caller's spans.
  func range(ofBlocks blocks: Swift.Range<Int>) -> Range {
    unsafe Range(
      blocks: blocks,
      regions: 0..<regionCount,
      selection: wholeBlocks,
      spans: UnsafeMutableBufferPointer(start: nil, count: 0),
      coversAllRegions: true
    )
  }

  private func selection(
    _ regions: Swift.Range<Int>,
    _ prefixBlockCount: Int,
    _ ignoresWindows: Bool
  ) -> RegionSelection {
    if regions.count == regionCount, ignoresWindows || identity.groups.isEmpty {
      return wholeBlocks
    }
    return ignoresWindows
      ? RegionSelection(regions)
      : RegionSelection(regions, of: identity, prefixBlockCount: prefixBlockCount)
  }

  /// Each span's length is its region's byte count, or at most that when regions are variable.
  func checkOffloadLengths(_ range: Range) throws(StoreError) {
    for (index, region) in range.blocks.flatMap({ _ in range.regions }).enumerated() {
      let length = unsafe range.spans[index].length
      let bound = identity.regionByteCounts[region]
      guard identity.regionsAreVariable ? length <= bound : length == bound else {
        throw .invalidArgument(.spanLength)
      }
      guard unsafe length == 0 || range.spans[index].data != nil else {
        throw .invalidArgument(.spanNull)
      }
    }
  }
}
