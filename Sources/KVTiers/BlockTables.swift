package import KVCore

/// Why a table could not be changed.
package enum BlockTablesError: Error, Equatable {
  case unknownSequence
  /// The sequence has tokens already.
  case notEmpty
  /// Every slot is referenced.
  case full
  /// Another call changed the sequence meanwhile.
  case changed
}

/// The device tier's bookkeeping: a pool of equal slots in a device's memory, and for each sequence the table of its blocks.
///
/// As PagedAttention has them (Kwon et al., SOSP 2023). A slot has a reference for each table that it is in, and for each copy under way
/// to or from it. A *labelled* slot holds a full block whose identity is known; it stays as it is, is shared by whoever wants that
/// block, and is cached when nobody references it. Only the last, partial block of a sequence is written, and only while nobody
/// else has it: else it is copied first. Not thread-safe: its owner holds a lock.
package struct BlockTables {
  private struct Sequence {
    var tokens: [UInt32] = []
    /// Logical block to slot.
    var slots: [Int] = []
    /// Counts changes.
    var version = 0
  }

  /// A labelled slot's block.
  private struct Content {
    var slot: Int
    /// Never given twice; children name their parent by it.
    var identity: UInt64
    /// 0 = none.
    var parentIdentity: UInt64
    var words: [UInt32]
  }

  package let slotCount: Int
  package let tokensPerBlock: Int
  private var pool = SlotPool()
  private var sequences: [UInt64: Sequence] = [:]
  private var nextSequence: UInt64 = 1
  private var contents: [BlockKey: Content] = [:]
  private var keys: [Int: BlockKey] = [:]
  private var nextIdentity: UInt64 = 1
  /// References of copies under way, by slot.
  private var holds: [Int: Int] = [:]

  package init(slotCount: Int, tokensPerBlock: Int) {
    self.slotCount = slotCount
    self.tokensPerBlock = tokensPerBlock
    pool.addSegment(first: 0, count: slotCount)
  }

  /// Slots that somebody references.
  package var usedSlotCount: Int { pool.pinnedCount }
  /// Slots with a block that nobody references.
  package var cachedSlotCount: Int { pool.cachedCount }
  package var sequenceCount: Int { sequences.count }

  // MARK: Sequences

  /// An empty sequence.
  package mutating func create() -> UInt64 {
    defer { nextSequence += 1 }
    sequences[nextSequence] = Sequence()
    return nextSequence
  }

  /// A sequence with the same tokens that shares all blocks, the last one too.
  package mutating func fork(_ id: UInt64) throws(BlockTablesError) -> UInt64 {
    var copy = try sequence(id)
    copy.version = 0
    for slot in copy.slots { pool.pin(slot) }
    defer { nextSequence += 1 }
    sequences[nextSequence] = copy
    return nextSequence
  }

  /// Ends a sequence's references.
  package mutating func free(_ id: UInt64) throws(BlockTablesError) {
    let sequence = try sequence(id)
    sequences[id] = nil
    // The last block first: of what is cached it leaves first, so that a prefix stays.
    for slot in sequence.slots.reversed() { dereference(slot) }
  }

  /// The slots of the sequence's blocks, in their order.
  package func table(_ id: UInt64) throws(BlockTablesError) -> [Int] { try sequence(id).slots }

  package func tokens(_ id: UInt64) throws(BlockTablesError) -> [UInt32] { try sequence(id).tokens }

  private func sequence(_ id: UInt64) throws(BlockTablesError) -> Sequence {
    guard let sequence = sequences[id] else { throw .unknownSequence }
    return sequence
  }

  // MARK: Appending

  /// Slots for more tokens, not in the table yet.
  package struct Growth {
    let sequence: UInt64
    let version: Int
    let tokens: [UInt32]
    let added: [Int]
    package var addedSlots: [Int] { added }
    /// The last block is shared: its contents have to be copied before it is written to.
    package let copyOnWrite: (from: Int, to: Int)?
  }

  /// Reserves what more tokens need: either all of it or nothing.
  package mutating func prepareAppend(
    _ id: UInt64,
    _ tokens: [UInt32]
  ) throws(BlockTablesError) -> Growth {
    let old = try sequence(id)
    let blockCount = (old.tokens.count + tokens.count + tokensPerBlock - 1) / tokensPerBlock
    let isPartial = old.tokens.count % tokensPerBlock != 0
    var shared: Int?
    if !tokens.isEmpty, isPartial, let last = old.slots.last, pool.referenceCount(last) > 1 {
      shared = last
    }
    var slots = try take(blockCount - old.slots.count + (shared == nil ? 0 : 1))
    var copy: (from: Int, to: Int)?
    if let shared, let own = slots.popLast() {
      hold([shared])
      copy = (shared, own)
    }
    return Growth(
      sequence: id,
      version: old.version,
      tokens: tokens,
      added: slots,
      copyOnWrite: copy
    )
  }

  /// Enters what was reserved into the table, once a copy on write is done.
  package mutating func commit(_ growth: Growth) throws(BlockTablesError) {
    guard var sequence = sequences[growth.sequence], sequence.version == growth.version else {
      abort(growth)
      throw .changed
    }
    if let copy = growth.copyOnWrite, let last = sequence.slots.indices.last {
      sequence.slots[last] = copy.to
      // The table's reference, and the copy's.
      dereference(copy.from)
      letGo([copy.from])
    }
    sequence.slots += growth.added
    sequence.tokens += growth.tokens
    sequence.version += 1
    sequences[growth.sequence] = sequence
  }

  /// Gives what was reserved back.
  package mutating func abort(_ growth: Growth) {
    for slot in growth.added { dereference(slot) }
    if let copy = growth.copyOnWrite {
      dereference(copy.to)
      letGo([copy.from])
    }
  }

  // MARK: Blocks of known identity

  /// Lets an empty sequence begin with the leading blocks of a prompt that the device has; returns how many.
  ///
  /// Keys find, words prove: each block's words are compared, and that it was labelled as the child of the one before.
  package mutating func share(
    _ id: UInt64,
    _ tokens: [UInt32],
    keys: [BlockKey]
  ) throws(BlockTablesError) -> Int {
    var sequence = try sequence(id)
    guard sequence.tokens.isEmpty else { throw .notEmpty }
    var parent: UInt64 = 0
    for (block, key) in keys.enumerated() {
      let words = tokens[block * tokensPerBlock..<(block + 1) * tokensPerBlock]
      guard let content = contents[key], content.parentIdentity == parent,
        content.words.elementsEqual(words)
      else { break }
      pool.pin(content.slot)
      sequence.slots.append(content.slot)
      sequence.tokens += words
      parent = content.identity
    }
    sequence.version += 1
    sequences[id] = sequence
    return sequence.slots.count
  }

  /// Says what the leading blocks of a sequence are, so that others can share them.
  ///
  /// Of blocks that the device has twice the first one keeps the label.
  package mutating func label(_ id: UInt64, keys labels: [BlockKey]) throws(BlockTablesError) {
    let sequence = try sequence(id)
    var parent: UInt64 = 0
    for (block, key) in labels.enumerated() where block < sequence.slots.count {
      let words = sequence.tokens[block * tokensPerBlock..<(block + 1) * tokensPerBlock]
      if let known = contents[key] {
        if known.parentIdentity == parent, known.words.elementsEqual(words) {
          parent = known.identity
          continue
        }
        // A collision, or a child whose parent left the device: nobody can find that one any more.
        unlabel(known.slot)
      }
      let slot = sequence.slots[block]
      if keys[slot] != nil { unlabel(slot) }
      contents[key] = Content(
        slot: slot,
        identity: nextIdentity,
        parentIdentity: parent,
        words: Array(words)
      )
      keys[slot] = key
      parent = nextIdentity
      nextIdentity += 1
    }
  }

  private mutating func unlabel(_ slot: Int) {
    if let key = keys.removeValue(forKey: slot) { contents[key] = nil }
    if !pool.isPinned(slot) { pool.discard(slot) }
  }

  // MARK: References

  /// References of a copy under way.
  package mutating func hold(_ slots: [Int]) {
    for slot in slots {
      pool.pin(slot)
      holds[slot, default: 0] += 1
    }
  }

  /// Ends those.
  package mutating func letGo(_ slots: [Int]) {
    for slot in slots {
      let left = (holds[slot] ?? 1) - 1
      holds[slot] = left == 0 ? nil : left
      dereference(slot)
    }
  }

  /// How many tables and copies reference a slot.
  package func referenceCount(_ slot: Int) -> Int { pool.referenceCount(slot) }

  private mutating func take(_ count: Int) throws(BlockTablesError) -> [Int] {
    guard pool.freeCount + pool.cachedCount >= count else { throw .full }
    var slots: [Int] = []
    while slots.count < count {
      if let slot = pool.allocateFree() {
        slots.append(slot)
      } else if let slot = pool.reclaimOldest() {
        if let key = keys.removeValue(forKey: slot) { contents[key] = nil }
        slots.append(slot)
      } else {
        for slot in slots { dereference(slot) }
        throw .full
      }
    }
    return slots
  }

  private mutating func dereference(_ slot: Int) {
    // Nobody could find its contents again.
    if pool.referenceCount(slot) == 1, keys[slot] == nil { pool.discard(slot) }
    pool.unpin(slot)
  }

  // MARK: Invariants

  /// What is wrong with the bookkeeping, one line each; empty if nothing.
  package func checkInvariants() -> [String] {
    var faults = pool.checkInvariants()
    var references = holds
    for (id, sequence) in sequences {
      for slot in sequence.slots { references[slot, default: 0] += 1 }
      let blockCount = (sequence.tokens.count + tokensPerBlock - 1) / tokensPerBlock
      if sequence.slots.count != blockCount {
        faults.append("sequence \(id): \(sequence.slots.count) slots for \(blockCount) blocks")
      }
    }
    for slot in 0..<slotCount where pool.referenceCount(slot) != references[slot] ?? 0 {
      faults.append(
        "slot \(slot): \(pool.referenceCount(slot)) references, \(references[slot] ?? 0) holders"
      )
    }
    for (key, content) in contents where keys[content.slot] != key {
      faults.append("slot \(content.slot): labelled otherwise")
    }
    if keys.count != contents.count { faults.append("labels without contents") }
    if pool.slotCount != slotCount { faults.append("\(pool.slotCount) slots of \(slotCount)") }
    return faults
  }
}
