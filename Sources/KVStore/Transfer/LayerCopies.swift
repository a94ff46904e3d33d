internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// Copies of blocks that the restores of a sequence read piece by piece, into pinned slots of the arena.
///
/// A piece begins where the one before ended, so that a slot's bytes come once and its header with the first. What is whole
/// and sound at the end becomes the block's host copy. Used by one thread at a time, the sequence's.
final class LayerCopies {
  private struct Copy {
    let slot: HostSlot
    let place: BlockPlace
    let position: BlockPosition?
    /// Bytes of the slot that have been read, from its start; a multiple of 4096.
    var readByteCount = 0
    /// Regions that have been read and are sound, from the first on.
    var soundRegionCount = 0
  }

  private let core: StoreCore
  private let namespace: NamespaceCore
  private var copies: [Int: Copy] = [:]
  /// Whether the calls from now on may begin copies of further blocks.
  var mayBegin = false

  /// A copy that cannot begin with the slot's first regions reads them again; so many bytes of them at most.
  private static let repeatedByteCountMax = 128 << 10

  init(_ core: StoreCore, _ namespace: NamespaceCore) {
    self.core = core
    self.namespace = namespace
  }

  /// The slot of a block's copy that these regions can be read into; nil when they are to be read elsewhere.
  func slot(
    ofBlock block: Int,
    _ entry: IndexEntry,
    _ position: BlockPosition?,
    _ regions: Range<Int>,
    _ state: inout StoreState
  ) -> HostSlot? {
    guard let place = entry.place, place.tier == .disk, !place.isInline,
      !namespace.identity.regionsAreVariable
    else { return nil }
    if let copy = copies[block] {
      return copy.place == place && regions.lowerBound <= copy.soundRegionCount ? copy.slot : nil
    }
    let layout = namespace.layout
    guard mayBegin,
      layout.regionOffset(regions.lowerBound) - layout.headerByteCount <= Self.repeatedByteCountMax,
      state.layerCopyByteCount + layout.slotByteCount <= core.effectiveHostBytes / 4,
      let slot = state.host.allocate(layout.slotByteCount)
    else { return nil }
    state.layerCopyByteCount += layout.slotByteCount
    copies[block] = Copy(slot: slot, place: place, position: position)
    return slot
  }

  /// Bytes of the slot that are still to be read before the regions up to this one are there.
  func missingBytes(ofBlock block: Int, upToRegion end: Int) -> Range<Int> {
    let start = copies[block]?.readByteCount ?? 0
    let layout = namespace.layout
    let wanted = min(roundUp(layout.regionEnd(end - 1), to: 4096), layout.slotByteCount)
    return start..<max(start, wanted)
  }

  /// These regions were read, and were sound; so are those before them, or the copy grows no more.
  func noteSound(_ bytes: BlockBytes, ofBlock block: Int, _ regions: Range<Int>) {
    guard var copy = copies[block] else { return }
    copy.readByteCount = missingBytes(ofBlock: block, upToRegion: regions.upperBound).upperBound
    let unseen = copy.soundRegionCount..<max(copy.soundRegionCount, regions.lowerBound)
    if unseen.isEmpty || (unsafe bytes.forEachRegion(of: [unseen]) { _, _ in }) {
      copy.soundRegionCount = max(copy.soundRegionCount, regions.upperBound)
    }
    copies[block] = copy
  }

  /// Gives a block's copy up, and its slot to the caller, who drops it once nothing is read into it.
  func giveUp(_ block: Int) {
    guard copies.removeValue(forKey: block) != nil else { return }
    core.state.withLock { $0.layerCopyByteCount -= namespace.layout.slotByteCount }
  }

  /// Makes host copies of those that are whole, and gives every slot back.
  func finish() {
    guard !copies.isEmpty else { return }
    core.state.withLock { state in
      for copy in copies.values {
        if copy.soundRegionCount == namespace.regionCount {
          state.tree.keepCopy(copy.slot, of: copy.position, namespace.id, readFrom: copy.place)
          state.host.unpin(copy.slot)
        } else {
          state.host.drop(copy.slot)
        }
      }
      state.layerCopyByteCount -= copies.count * namespace.layout.slotByteCount
    }
    core.state.notifyAll()
    copies = [:]
  }
}
