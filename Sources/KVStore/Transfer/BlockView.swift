internal import KVCodec
internal import KVCore
internal import KVTiers

/// Stored blocks lent for reading where they lie in the arena, until they are released.
///
/// Thread-safe. They cannot be evicted from the arena meanwhile; `release`, or the close of the store's handle, ends that, and nobody may
/// look at the bytes then.
public final class BlockView: Sendable {
  /// How each block of the range fared; the first `doneBlockCount` are lent.
  public let result: TransferResult
  private let core: StoreCore
  private let namespace: NamespaceCore
  private let blocks: Range<Int>
  private let regions: Range<Int>
  private let slots: [HostSlot]
  private let isHeld = AtomicFlag(true)
  private let onRelease: @Sendable (BlockView) -> Void

  init(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ range: NamespaceCore.Range,
    _ slots: [HostSlot],
    _ result: TransferResult,
    onRelease: @escaping @Sendable (BlockView) -> Void
  ) {
    self.core = core
    self.namespace = namespace
    self.result = result
    self.slots = slots
    self.onRelease = onRelease
    blocks = range.blocks
    regions = range.regions
  }

  /// Lends a region's bytes; nil for one that is not part of the view, and after the release.
  ///
  /// - Parameters:
  ///   - block: of the prompt, one of those that the view was asked for.
  ///   - region: of the block, likewise.
  ///   - body: is not to keep the pointer.
  /// - Returns: what `body` answered.
  public func withBytes<Result>(
    block: Int,
    region: Int,
    _ body: (UnsafeRawBufferPointer) -> Result
  ) -> Result? {
    guard let bytes = unsafe bytes(block: block, region: region) else { return nil }
    return unsafe body(bytes)
  }

  /// Where a region lies; valid until the release.
  @unsafe package func bytes(block: Int, region: Int) -> UnsafeRawBufferPointer? {
    guard isHeld.value, regions.contains(region), block >= blocks.lowerBound,
      block - blocks.lowerBound < slots.count
    else { return nil }
    let slot = unsafe core.hostMemory(of: slots[block - blocks.lowerBound], namespace)
    let headerByteCount = namespace.layout.headerByteCount
    guard
      let header = unsafe SlotHeaderView(
        trusted: UnsafeRawBufferPointer(start: slot, count: headerByteCount)
      )
    else { return nil }
    var offset = headerByteCount
    for index in 0..<region { offset += Int(header.region(index).storedByteCount) }
    let count = Int(header.region(region).storedByteCount)
    return unsafe UnsafeRawBufferPointer(start: slot + offset, count: count)
  }

  /// Ends the loan; later calls do nothing.
  public func release() {
    guard !core.isForked, isHeld.exchange(false) else { return }
    core.unpinInHost(slots, wereLent: true)
    onRelease(self)
  }

  /// Whether the process was forked since: then the bytes are the parent's as they were.
  public var isForked: Bool { core.isForked }
}

extension StoreCore {
  /// Pins and lends the range's leading blocks, as many as are stored and may be lent.
  func lend(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ limit: TransferLimit
  ) throws(StoreError) -> (slots: [HostSlot], result: TransferResult) {
    var result = TransferResult(.miss, blockCount: range.blocks.count)
    if isPoisoned { return ([], result) }
    var slots: [HostSlot] = []
    var end = BlockOutcome.done
    var next = range.blocks.lowerBound
    do throws(StoreError) {
      while next < range.blocks.upperBound {
        let window = next..<min(next + windowBlockCount(namespace), range.blocks.upperBound)
        let (pinned, windowEnd) = try pinInHost(namespace, prompt, window, limit, lends: true)
        for block in pinned {
          slots.append(block.slot)
          result.outcomes[block.block - range.blocks.lowerBound] = .done
          if block.wasInHost { result.hostBlockCount += 1 } else { result.diskBlockCount += 1 }
        }
        next += pinned.count
        end = windowEnd
        if pinned.count == window.count { continue }
        // Room comes when the writer is done with some blocks; anything else does not change by waiting.
        guard end == .busy, !limit.isOver, waitForRoom(namespace.layout.slotByteCount, limit)
        else { break }
      }
    } catch {
      unpinInHost(slots, wereLent: true)
      throw error
    }
    for block in next..<range.blocks.upperBound {
      result.outcomes[block - range.blocks.lowerBound] = end == .done ? .miss : end
    }
    result.countLeading()
    state.withLock { state in
      state.statistics.blocksRestoredHost += UInt64(result.hostBlockCount)
      state.statistics.blocksRestoredDisk += UInt64(result.diskBlockCount)
    }
    return (slots, result)
  }
}
