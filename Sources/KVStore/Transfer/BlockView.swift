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
    let slot = unsafe core.hostMemory(of: slots[block - blocks.lowerBound])
    return unsafe BlockBytes(hostCopy: slot, namespace)?.region(region)
  }

  /// Ends the loan; later calls do nothing.
  public func release() {
    guard !core.isForked, isHeld.exchange(false) else { return }
    core.endLoans(slots)
    onRelease(self)
  }

  /// Whether the process was forked since: then the bytes are the parent's as they were.
  public var isForked: Bool { core.isForked }
}
