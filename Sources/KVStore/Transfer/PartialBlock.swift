internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// A block whose regions come one call at a time.
///
/// Each region comes once: the call that began to copy it brings it, and another one with the same region waits for that copy's end. So a slot
/// has all of its regions only when nothing is copied into it any more.
struct PartialBlock {
  /// Its key alone would let a forged collision mix two blocks' regions: `words` and `extra` are compared.
  struct Name: Hashable {
    let namespace: NamespaceID
    let blockKey: BlockKey
  }

  enum Region {
    case absent
    case copying
    case here(SlotHeader.Region)
  }

  /// What one call copies, with a pin of its own on the slot.
  struct Copy {
    let name: Name
    /// Those of the call that nobody had begun to bring.
    let regions: [Int]
  }

  let words: [UInt32]
  let extra: [UInt8]
  /// Pinned for the block, and once more by each copy under way.
  let hostSlot: HostSlot
  var regions: [Region]
  /// Calls that copy.
  var copyCount = 0
  /// All regions are here, and the call that brought the last one takes the block into the index.
  var isEntering = false
  var usedAt: UInt64
  /// Of the handles that brought regions.
  var ledgers: [FlushLedger] = []

  func holds(_ block: PromptBlock) -> Bool {
    unsafe words.elementsEqual(block.words) && extra.elementsEqual(block.extra)
  }

  /// What the regions' headers say, once all are here.
  var regionsIfComplete: [SlotHeader.Region]? {
    let here = regions.compactMap { region in
      if case .here(let header) = region { header } else { nil }
    }
    return here.count == regions.count ? here : nil
  }

  /// Without a call for so long a block gives its slot back where room is short, in nanoseconds.
  static let abandonedAfter: UInt64 = 60_000_000_000
}

extension StoreState {
  /// A copy has ended; returns the headers of all regions if the block is whole by that, for the caller to enter.
  ///
  /// A block that was stored by another call meanwhile is no longer partial: its slot is free with the last copy's end.
  mutating func endCopy(_ incoming: IncomingBlock) -> [SlotHeader.Region]? {
    guard let copy = incoming.part else { return nil }
    defer { arena.unpin(incoming.hostSlot) }
    guard var partial = partials[copy.name], partial.hostSlot == incoming.hostSlot else {
      return nil
    }
    for (region, header) in zip(copy.regions, incoming.regions) {
      partial.regions[region] = .here(header)
    }
    partial.copyCount -= 1
    partial.usedAt = monotonicNanoseconds()
    let headers = partial.isEntering ? nil : partial.regionsIfComplete
    partial.isEntering = partial.isEntering || headers != nil
    partials[copy.name] = partial
    return headers
  }

  /// A block is stored; what has come of it otherwise is of no use, unless a call takes it into the index just now.
  mutating func dropPartial(_ name: PartialBlock.Name) {
    guard let partial = partials[name], !partial.isEntering else { return }
    partials[name] = nil
    dropHostSlot(partial.hostSlot)
  }

  /// The same for all blocks of a stored prefix from one of them on.
  mutating func dropPartials(_ namespace: NamespaceID, _ prefix: StoredPrefix, from first: Int) {
    guard !partials.isEmpty else { return }
    var block = prefix.firstBlock
    for segment in prefix.segments {
      let end = block + Int(segment.blockCount)
      for stored in max(block, first)..<max(end, first) {
        guard let key = index.blockKey(at: segment.location(at: stored - block)) else { return }
        dropPartial(PartialBlock.Name(namespace: namespace, blockKey: key))
      }
      block = end
    }
  }

  /// Layer-wise offloads that nobody went on with for a minute give their slots back, but for those that are being copied into.
  mutating func dropAbandonedPartials() {
    let now = monotonicNanoseconds()
    for (name, partial) in partials
    where partial.copyCount == 0 && !partial.isEntering
      && partial.usedAt + PartialBlock.abandonedAfter < now
    {
      for ledger in partial.ledgers { ledger.note(.incomplete) }
      dropPartial(name)
    }
  }
}
