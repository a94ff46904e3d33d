internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// A block whose regions come one call at a time.
///
/// Each region comes once: the call that began to copy it brings it, and another one with the same region waits for that copy's end. So a slot
/// has all of its regions only when nothing is copied into it any more.
struct PartialBlock {
  /// Its key alone would let a forged collision mix two blocks' regions: `words`, `extra` and `prefix` are compared.
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
  /// Of the blocks before it (`PrefixHash`).
  let prefix: Int
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

  func holds(_ block: PromptBlock, behind prefix: Int) -> Bool {
    unsafe self.prefix == prefix && words.elementsEqual(block.words)
      && extra.elementsEqual(block.extra)
  }

  /// What the regions' headers say, once all are here.
  var regionsIfComplete: [SlotHeader.Region]? {
    let here = regions.compactMap { region in
      if case .here(let header) = region { header } else { nil }
    }
    return here.count == regions.count ? here : nil
  }

  /// A call copies one of these regions.
  func isCopying(_ regions: Range<Int>) -> Bool {
    self.regions[regions].contains { region in
      if case .copying = region { true } else { false }
    }
  }

  func isAbsent(_ region: Int) -> Bool { if case .absent = regions[region] { true } else { false } }
}
