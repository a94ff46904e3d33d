internal import KVCodec
internal import KVCore
internal import KVTiers

/// The blocks whose regions come one call at a time, until a call takes each into the index.
struct PartialBlocks {
  private let host: HostTier
  private var blocks: [PartialBlock.Name: PartialBlock] = [:]

  /// Without a call for so long a block gives its slot back where room is short.
  private static let abandonedNanoseconds: UInt64 = 60_000_000_000

  init(host: HostTier) { self.host = host }

  var isEmpty: Bool { blocks.isEmpty }

  func hasAny(of namespace: NamespaceID) -> Bool {
    !blocks.isEmpty && blocks.keys.contains { $0.namespace == namespace }
  }

  func contains(_ name: PartialBlock.Name) -> Bool { blocks[name] != nil }

  /// All of its regions are here, and a call is taking it into the index.
  func isEntering(_ name: PartialBlock.Name) -> Bool { blocks[name]?.isEntering == true }

  /// Of the handles that brought regions.
  func ledgers(of name: PartialBlock.Name) -> [FlushLedger] { blocks[name]?.ledgers ?? [] }

  /// The first 64 bits of the keys of a namespace's.
  func keys(in namespace: NamespaceID) -> Set<UInt64> {
    Set(blocks.keys.filter { $0.namespace == namespace }.map(\.blockKey.high))
  }

  /// A call brings regions of a block: those that nobody had begun to bring are its to copy, into a slot that it has a pin on.
  ///
  /// nil when it has to wait: for room, or for another call that copies one of the regions or takes the block into the index.
  mutating func begin(
    _ name: PartialBlock.Name,
    _ block: PromptBlock,
    behind prefix: Int,
    _ regions: Range<Int>,
    _ namespace: NamespaceCore,
    for ledger: FlushLedger
  ) -> (HostSlot, PartialBlock.Copy)? {
    var partial: PartialBlock
    if let known = blocks[name] {
      guard known.holds(block, behind: prefix), !known.isCopying(regions), !known.isEntering else {
        return nil
      }
      partial = known
    } else {
      guard let slot = host.allocate(namespace.layout.slotByteCount) else { return nil }
      partial = unsafe PartialBlock(
        words: Array(block.words),
        extra: Array(block.extra),
        prefix: prefix,
        hostSlot: slot,
        regions: Array(repeating: .absent, count: namespace.regionCount),
        usedAt: 0
      )
    }
    let absent = regions.filter { partial.isAbsent($0) }
    for region in absent { partial.regions[region] = .copying }
    partial.copyCount += 1
    if !partial.ledgers.contains(where: { $0 === ledger }) { partial.ledgers.append(ledger) }
    partial.usedAt = monotonicNanoseconds()
    host.pin(partial.hostSlot)
    blocks[name] = partial
    return (partial.hostSlot, PartialBlock.Copy(name: name, regions: absent))
  }

  /// A copy has ended; returns the headers of all regions if the block is whole by that, for the caller to enter.
  ///
  /// A block that was stored by another call meanwhile is no longer partial: its slot is free with the last copy's end.
  mutating func endCopy(_ incoming: IncomingBlock) -> [SlotHeader.Region]? {
    guard let copy = incoming.part else { return nil }
    defer { host.unpin(incoming.hostSlot) }
    guard var partial = blocks[copy.name], partial.hostSlot == incoming.hostSlot else {
      return nil
    }
    for (region, header) in zip(copy.regions, incoming.regions) {
      partial.regions[region] = .here(header)
    }
    partial.copyCount -= 1
    partial.usedAt = monotonicNanoseconds()
    let headers = partial.isEntering ? nil : partial.regionsIfComplete
    partial.isEntering = partial.isEntering || headers != nil
    blocks[copy.name] = partial
    return headers
  }

  /// The block is in the index, and its slot with it.
  mutating func entered(_ name: PartialBlock.Name) { blocks[name] = nil }

  /// A block is stored; what has come of it otherwise is of no use, unless a call takes it into the index just now.
  mutating func drop(_ name: PartialBlock.Name) {
    guard let partial = blocks[name], !partial.isEntering else { return }
    blocks[name] = nil
    host.drop(partial.hostSlot)
  }

  /// Blocks that nobody went on with give their slots back, but for those that are being copied into.
  mutating func dropAbandoned() {
    let now = monotonicNanoseconds()
    for (name, partial) in blocks
    where partial.copyCount == 0 && !partial.isEntering
      && partial.usedAt + Self.abandonedNanoseconds < now
    {
      for ledger in partial.ledgers { ledger.note(.incomplete) }
      drop(name)
    }
  }
}
