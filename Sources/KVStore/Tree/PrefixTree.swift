internal import KVCatalog
internal import KVCore
internal import KVIndex
internal import KVTiers

/// What this process knows of the stored prefixes: the index, less what is being removed.
///
/// Entries change here only, so that each host copy has one block, and a block that leaves lets its copy go. The state
/// lock guards it.
struct PrefixTree {
  let index: PrefixIndex
  private let host: HostTier
  private let intents: EvictionIntents
  /// Removed from the index, with the removal's commit still to come; not to be loaded again.
  private var hidden = HiddenRanges()
  /// Counts removals, so that a loader sees that what it read may be gone.
  private(set) var removalEpoch: UInt64 = 0

  init(host: HostTier, intents: EvictionIntents) {
    let index = PrefixIndex()
    self.index = index
    self.host = host
    self.intents = intents
    index.onHostSlotMoved = { host.moved(HostSlot(rawValue: $0), to: $1) }
    // The index holds the host tier by the closure above.
    host.onReclaimed = { [unowned index] in index.updateEntry(at: $0) { $0.hostSlot = -1 } }
  }

  var statistics: IndexStatistics { index.statistics }

  // MARK: Blocks

  func entry(at location: IndexLocation) -> IndexEntry? { index.entry(at: location) }

  func blockKey(at location: IndexLocation) -> BlockKey? { index.blockKey(at: location) }

  /// nil for a pending block.
  func position(of location: IndexLocation) -> BlockPosition? { index.position(of: location) }

  /// What names the block at `location` to the writer and to leases.
  func target(at location: IndexLocation) -> LeaseTable.Target? {
    if let position = index.position(of: location) { return .published(position) }
    guard let slot = index.entry(at: location)?.host, let ticket = host.ticket(of: slot)
    else { return nil }
    return .pending(ticket: ticket)
  }

  /// Goes through a prefix in order, piece by piece: for what looks at each block of a match.
  @inline(__always)
  func forEachSegment(
    of prefix: StoredPrefix,
    _ body: (_ firstBlock: Int, Span<IndexEntry>) -> Void
  ) {
    var block = prefix.firstBlock
    for segment in prefix.segments {
      index.withEntries(of: segment) { body(block, $0.span) }
      block += Int(segment.blockCount)
    }
  }

  /// Goes through the blocks of a path in order, until `body` returns false.
  @inline(__always)
  func forEachBlock(
    of segments: [IndexSegment],
    from firstBlock: Int = 0,
    _ body: (_ block: Int, IndexEntry) -> Bool
  ) {
    var block = firstBlock
    for segment in segments {
      let goesOn = index.withEntries(of: segment) { entries in
        for offset in 0..<entries.count where !body(block + offset, entries[offset]) {
          return false
        }
        return true
      }
      guard goesOn == true else { return }
      block += Int(segment.blockCount)
    }
  }

  @inline(__always)
  func forEachBlock(of prefix: StoredPrefix, _ body: (_ block: Int, IndexEntry) -> Bool) {
    forEachBlock(of: prefix.segments, from: prefix.firstBlock, body)
  }

  /// The blocks down to a stored one; none if the index has not got it.
  func path(_ namespace: NamespaceID, to position: BlockPosition) -> [IndexSegment] {
    guard let location = index.locate(namespace, position) else { return [] }
    var segments: [IndexSegment] = []
    index.path(to: location, into: &segments)
    return segments
  }

  /// Goes along a prompt's path, from the root or from a mark that still holds.
  ///
  /// - Returns: how far the index has it, and where `segments` begin.
  func walk(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    blockCount: Int,
    after mark: PathMark,
    touch: Bool,
    segments: inout [IndexSegment]
  ) -> (end: PathMark, firstBlock: Int) {
    let holds = mark.layoutVersion == index.layoutVersion && mark.blockCount <= blockCount
    var end = holds ? mark : PathMark()
    end.layoutVersion = index.layoutVersion
    let firstBlock = end.blockCount
    segments.removeAll(keepingCapacity: true)
    guard let words = unsafe prompt.words else { return (end, firstBlock) }
    let extra: ExtraBytesAccessor? =
      unsafe prompt.extra.isEmpty ? nil : { unsafe prompt.extraBytes(ofBlock: firstBlock + $0) }
    let match = unsafe index.match(
      namespace.id,
      words: words + firstBlock * namespace.wordsPerBlock,
      blockCount: blockCount - firstBlock,
      extra: extra,
      after: end.location,
      touch: touch,
      segments: &segments
    )
    end.location = match.location
    end.blockCount += match.matchedBlockCount
    return (end, firstBlock)
  }

  // MARK: Blocks that come

  /// Whether it knows no block of a namespace.
  func isEmpty(_ namespace: NamespaceID) -> Bool { index.isEmpty(namespace) }

  /// Whether a block of a namespace is on its way into the catalog.
  func hasPending(_ namespace: NamespaceID) -> Bool {
    host.hasPending && index.hasPending(namespace)
  }

  /// Forgets a namespace of which it knows no block.
  func forget(_ namespace: NamespaceID) { index.removeNamespace(namespace) }

  func addNamespace(_ namespace: NamespaceCore) {
    index.addNamespace(namespace.id, wordsPerBlock: namespace.wordsPerBlock)
  }

  /// Adds rows of the catalog behind the mark's block, as far as none of them is being removed.
  func enter(
    _ rows: [CatalogWalk.Row],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    after mark: PathMark
  ) {
    var segments: [IndexSegment] = []
    let start = walk(
      namespace,
      prompt,
      blockCount: mark.blockCount,
      after: mark,
      touch: false,
      segments: &segments
    ).end
    guard start.blockCount == mark.blockCount else { return }
    var location = start.location
    for (offset, row) in rows.enumerated() {
      guard !hidden.covers(row.position), !intents.covers(row.position),
        let block = namespace.block(mark.blockCount + offset, of: prompt),
        let appended = append(
          namespace.id,
          after: location,
          block,
          entry: row.entry,
          at: row.position
        )
      else { return }
      location = appended.location
    }
  }

  /// Adds a block behind `parent`: one of the catalog at its position, or one that is pending.
  func append(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    _ block: PromptBlock,
    entry: IndexEntry,
    at position: BlockPosition? = nil
  ) -> IndexAppendResult? {
    guard let words = unsafe block.words.baseAddress else { return nil }
    return unsafe index.append(
      namespace,
      after: parent,
      words: words,
      extra: block.extra,
      entry: entry,
      at: position
    )
  }

  /// Lets durable blocks go that were used longest ago, if the index takes more than it may.
  func trim(toByteCount bound: Int) {
    guard index.statistics.byteCount > bound else { return }
    index.trim(toByteCount: bound / 8 * 7) { !$0.flags.contains(.pending) }
  }

  // MARK: Blocks that change

  /// A pending block, still with its host copy, is stored.
  func publish(_ slot: HostSlot, as position: BlockPosition, at place: BlockPlace) {
    guard let location = host.location(of: slot) else { return }
    index.assignPublished(location, as: position, durablePlace: place)
    // It may have moved.
    if let now = host.location(of: slot) {
      index.updateEntry(at: now) { $0.flags.remove(.pending) }
    }
    host.becameDurable(slot)
  }

  /// A stored block lies elsewhere now.
  mutating func move(
    _ namespace: NamespaceID,
    _ position: BlockPosition,
    from: BlockPlace?,
    to place: BlockPlace
  ) {
    if let location = index.locate(namespace, position), index.entry(at: location)?.place == from {
      index.updateEntry(at: location) { $0.place = place }
    }
    // A loader may have read the row before the commit and enter it after.
    removalEpoch += 1
  }

  /// Makes a pinned slot that was read into a block's host copy.
  ///
  /// If the block has moved on, or another thread was first, the bytes are good, but the copy is nobody's.
  func keepCopy(
    _ slot: HostSlot,
    of position: BlockPosition?,
    _ namespace: NamespaceID,
    readFrom place: BlockPlace
  ) {
    guard let position, let location = index.locate(namespace, position),
      let entry = index.entry(at: location), entry.host == nil, entry.place == place
    else { return host.detach(slot) }
    index.updateEntry(at: location) { $0.hostSlot = slot.rawValue }
    host.attach(slot, at: location)
  }

  // MARK: Blocks that leave

  /// Takes blocks out of the index; their host copies become free, or do when their last pin ends.
  mutating func remove(_ range: RemovedRange) {
    removalEpoch += 1
    index.truncate(
      range.namespace,
      from: BlockPosition(run: range.run, position: range.firstPosition),
      onRemove: detach
    )
  }

  mutating func remove(at location: IndexLocation) {
    removalEpoch += 1
    index.truncate(at: location, onRemove: detach)
  }

  /// The pending block in a slot, with all below it, unless it has left.
  mutating func remove(inSlot slot: HostSlot) {
    if let location = host.location(of: slot) { remove(at: location) }
  }

  /// Everything of a namespace; the next matches read it from the catalog again.
  mutating func removeAll(of namespace: NamespaceCore) {
    removalEpoch += 1
    index.removeNamespace(namespace.id, onRemove: detach)
    addNamespace(namespace)
  }

  private func detach(_ location: IndexLocation, _ entry: IndexEntry) {
    if let slot = entry.host { host.detach(slot) }
  }

  /// Takes blocks out that are about to be removed, and keeps them from being loaded until `reveal`.
  mutating func hide(_ range: RemovedRange) {
    hidden.insert(range)
    remove(range)
  }

  /// Whether exactly this range is hidden.
  func isHidden(_ range: RemovedRange) -> Bool { hidden.contains(range) }

  /// The removal is committed, or was not to be.
  mutating func reveal(_ ranges: some Sequence<RemovedRange>) {
    // A loader may have read the rows before the commit and enter them after.
    removalEpoch += 1
    for range in ranges { hidden.remove(range) }
  }

  // MARK: Promises

  /// Blocks of a stored prefix, from one of them on, were offered by a handle; of those that are not durable yet it hears
  /// as well.
  func promise(_ prefix: StoredPrefix, from first: Int, to ledger: FlushLedger) {
    guard host.hasPending else { return }
    var block = prefix.blockCount
    // Nothing that is durable follows a block that is not.
    for segment in prefix.segments.reversed() {
      for offset in (0..<Int(segment.blockCount)).reversed() {
        block -= 1
        guard block >= first, promise(segment.location(at: offset), to: ledger) else { return }
      }
    }
  }

  /// The same for one block; false if it is durable.
  @discardableResult
  func promise(_ location: IndexLocation, to ledger: FlushLedger) -> Bool {
    guard index.position(of: location) == nil, let slot = index.entry(at: location)?.host
    else { return false }
    return host.promise(slot, to: ledger)
  }
}

extension IndexEntry {
  /// Where its host copy lies.
  var host: HostSlot? { hostSlot >= 0 ? HostSlot(rawValue: hostSlot) : nil }
}
