internal import KVCore
package import KVFile

/// A slot of the host tier, named by its address: the arena's page of 4096 bytes that it begins at.
package struct HostSlot: Hashable, Sendable, RawRepresentable {
  package let rawValue: Int32
  package init(rawValue: Int32) { self.rawValue = rawValue }
}

/// The arena's memory.
///
/// Where a slot lies follows from its name, so no lock is needed to find a pinned one.
@safe package struct HostMemory: Sendable {
  private let mapping: MappedMemory

  init(_ mapping: MappedMemory) { self.mapping = mapping }

  /// All of it.
  package var bytes: UnsafeMutableRawBufferPointer { unsafe mapping.bytes }

  /// Has these pages faulted in by the calling thread.
  func populate(pages: Range<Int>) {
    mapping.populate(pages.lowerBound * 4096..<pages.upperBound * 4096)
  }

  /// A slot's first byte; the caller holds a pin on it.
  package func pointer(to slot: HostSlot) -> UnsafeMutableRawPointer {
    unsafe mapping.bytes.baseAddress.unsafelyUnwrapped.advanced(by: Int(slot.rawValue) * 4096)
  }
}

/// The host tier: slots of several sizes in one page-aligned mapping that is not pre-faulted.
///
/// Once a first chunk was not enough, a thread of its own faults each new chunk in, and what follows it: zeroing pages would else be most of what
/// an offload does with memory that was never used (docs/decisions/0006).
///
/// The mapping is cut into *chunks* as slot sizes need them; a chunk holds slots of one size and is given to another size when none of its slots is
/// pinned. A slot looks the same here as in a slot file, so one write moves it. Not thread-safe: its owner holds a lock.
///
/// ```
/// mapping  | chunk of 1 MiB slots | chunk of 8 KiB slots | unused ... |
/// ```
package final class HostArena {
  struct Chunk {
    let firstPage: Int
    let pageCount: Int
    let slotByteCount: Int
    /// Index of its slots' size in `classes`.
    let sizeClass: Int
    /// Of its first slot, in the pool of its size.
    let firstIndex: Int
    let slotCount: Int
  }

  private struct SizeClass {
    let slotByteCount: Int
    var pool = SlotPool()
    var nextIndex = 0
    /// Numbers of removed chunks' slots, to be used again: (first, count).
    var spareIndices: [(first: Int, count: Int)] = []
  }

  /// What an allocation gave, and whose contents it cost.
  package struct Allocation {
    package let slot: HostSlot
    package let reclaimed: [HostSlot]
  }

  package let memory: HostMemory
  let pageCount: Int
  var lending = HostLending()
  /// By first page.
  private var chunks: [Chunk] = []
  /// One for each slot size that was ever asked for: a few.
  private var classes: [SizeClass] = []

  /// Pages that were faulted in ahead, or are about to be, from the first on.
  private var populatedPageCount = 0
  private let populating = ServicePool(threadCount: 1)

  private static let pageByteCount = 4096

  /// Maps `byteCount` bytes; they are paid for when they are first used.
  package init(byteCount: Int) throws(FileError) {
    pageCount = max(byteCount / Self.pageByteCount, 1)
    // Slots are large and read into by the kernel, which otherwise faults them in by 4 KiB (docs/decisions/0006).
    memory = HostMemory(
      try MappedMemory.anonymous(
        byteCount: pageCount * Self.pageByteCount,
        usesHugePages: true
      )
    )
  }

  /// Bytes of the slots that are pinned or cached.
  package var usedByteCount: Int {
    classes.reduce(0) { sum, sizeClass in
      sum + sizeClass.slotByteCount * (sizeClass.pool.pinnedCount + sizeClass.pool.cachedCount)
    }
  }

  // MARK: Slots

  deinit { close() }

  /// A slot of this size (a multiple of 4096), pinned once; nil when everything is pinned.
  package func allocate(_ slotByteCount: Int) -> Allocation? {
    assert(slotByteCount > 0 && slotByteCount % Self.pageByteCount == 0)
    let sizeClass = sizeClass(slotByteCount)
    if let index = classes[sizeClass].pool.allocateFree() {
      return Allocation(slot: slot(index, sizeClass), reclaimed: [])
    }
    if addChunk(sizeClass), let index = classes[sizeClass].pool.allocateFree() {
      return Allocation(slot: slot(index, sizeClass), reclaimed: [])
    }
    if let index = classes[sizeClass].pool.reclaimOldest() {
      let slot = slot(index, sizeClass)
      return Allocation(slot: slot, reclaimed: [slot])
    }
    // Other sizes give up chunks that nobody holds, until one fits in their place.
    var reclaimed: [HostSlot] = []
    for chunk in chunks where chunk.slotByteCount != slotByteCount {
      guard let slots = remove(chunk) else { continue }
      reclaimed += slots
      if addChunk(sizeClass), let index = classes[sizeClass].pool.allocateFree() {
        return Allocation(slot: slot(index, sizeClass), reclaimed: reclaimed)
      }
    }
    reclaimedWithoutGain += reclaimed
    return nil
  }

  /// Slots whose contents went in an allocation that failed all the same; the owner forgets them.
  package func takeReclaimedWithoutGain() -> [HostSlot] {
    defer { reclaimedWithoutGain = [] }
    return reclaimedWithoutGain
  }
  private var reclaimedWithoutGain: [HostSlot] = []

  package func pin(_ slot: HostSlot) { withPool(of: slot) { $0.pin($1) } }

  /// Ends a pin; with the last one the slot is cached, or free if it was discarded.
  package func unpin(_ slot: HostSlot) { withPool(of: slot) { $0.unpin($1) } }

  /// The contents are of no more use: free now, or when the last pin ends.
  package func discard(_ slot: HostSlot) { withPool(of: slot) { $0.discard($1) } }

  package func referenceCount(of slot: HostSlot) -> Int {
    withPool(of: slot) { $0.referenceCount($1) } ?? 0
  }

  @discardableResult
  private func withPool<Result>(
    of slot: HostSlot,
    _ body: (inout SlotPool, Int) -> Result
  ) -> Result? {
    guard let chunk = chunk(containing: Int(slot.rawValue)) else {
      assertionFailure("slot of no chunk")
      return nil
    }
    let slotPages = chunk.slotByteCount / Self.pageByteCount
    let index = chunk.firstIndex + (Int(slot.rawValue) - chunk.firstPage) / slotPages
    return body(&classes[chunk.sizeClass].pool, index)
  }

  /// The class of slots of this size, made if there was none.
  private func sizeClass(_ slotByteCount: Int) -> Int {
    if let known = classes.firstIndex(where: { $0.slotByteCount == slotByteCount }) { return known }
    classes.append(SizeClass(slotByteCount: slotByteCount))
    return classes.count - 1
  }

  // MARK: Chunks

  func chunk(containing page: Int) -> Chunk? {
    var low = 0
    var high = chunks.count
    while low < high {
      let middle = (low + high) / 2
      if chunks[middle].firstPage + chunks[middle].pageCount <= page {
        low = middle + 1
      } else {
        high = middle
      }
    }
    guard low < chunks.count, chunks[low].firstPage <= page else { return nil }
    return chunks[low]
  }

  private func slot(_ index: Int, _ sizeClass: Int) -> HostSlot {
    for chunk in chunks
    where chunk.sizeClass == sizeClass && index >= chunk.firstIndex
      && index < chunk.firstIndex + chunk.slotCount
    {
      let slotPages = chunk.slotByteCount / Self.pageByteCount
      let page = chunk.firstPage + (index - chunk.firstIndex) * slotPages
      return HostSlot(rawValue: Int32(page))
    }
    assertionFailure("slot of no chunk")
    return HostSlot(rawValue: 0)
  }

  /// Cuts a chunk for this size out of the first gap that has room; false when none has.
  private func addChunk(_ sizeClass: Int) -> Bool {
    let slotPages = classes[sizeClass].slotByteCount / Self.pageByteCount
    // An eighth of the arena at a time, 16 MiB at most: few chunks, and room for several sizes.
    let wantedPages = min(pageCount / 8, 4096)
    var gapStart = 0
    for position in 0...chunks.count {
      let gapEnd = position < chunks.count ? chunks[position].firstPage : pageCount
      let slotCount = min(max(wantedPages / slotPages, 1), (gapEnd - gapStart) / slotPages)
      if slotCount > 0 {
        insertChunk(at: position, firstPage: gapStart, slotCount, sizeClass)
        if chunks.count > 1 { populate(after: chunks[position]) }
        return true
      }
      if position < chunks.count {
        gapStart = chunks[position].firstPage + chunks[position].pageCount
      }
    }
    return false
  }

  /// Faults a chunk in, and as much behind it.
  private func populate(after chunk: Chunk) {
    let start = max(chunk.firstPage, populatedPageCount)
    let end = min(chunk.firstPage + 2 * chunk.pageCount, pageCount)
    guard start < end else { return }
    populatedPageCount = end
    // Refused where there is no thread to be had: what nobody faults in ahead is when it is used.
    _ = populating.submit { [memory] in memory.populate(pages: start..<end) }
  }

  /// Ends the thread that faults memory in; waits for at most twice a chunk.
  package func close() { populating.stop() }

  private func insertChunk(
    at position: Int,
    firstPage: Int,
    _ slotCount: Int,
    _ sizeClass: Int
  ) {
    let slotByteCount = classes[sizeClass].slotByteCount
    let spares = classes[sizeClass].spareIndices
    let firstIndex: Int
    if let spare = spares.firstIndex(where: { $0.count >= slotCount }) {
      firstIndex = spares[spare].first
      classes[sizeClass].spareIndices.remove(at: spare)
    } else {
      firstIndex = classes[sizeClass].nextIndex
      classes[sizeClass].nextIndex += slotCount
    }
    classes[sizeClass].pool.addSegment(first: firstIndex, count: slotCount)
    chunks.insert(
      Chunk(
        firstPage: firstPage,
        pageCount: slotCount * (slotByteCount / Self.pageByteCount),
        slotByteCount: slotByteCount,
        sizeClass: sizeClass,
        firstIndex: firstIndex,
        slotCount: slotCount
      ),
      at: position
    )
  }

  /// Takes a chunk out unless a slot of it is pinned; returns the slots whose contents go with it.
  private func remove(_ chunk: Chunk) -> [HostSlot]? {
    guard
      let cached = classes[chunk.sizeClass].pool.removeSegment(
        first: chunk.firstIndex,
        count: chunk.slotCount
      )
    else { return nil }
    let slots = cached.map { slot($0, chunk.sizeClass) }
    classes[chunk.sizeClass].spareIndices.append((chunk.firstIndex, chunk.slotCount))
    chunks.removeAll { $0.firstPage == chunk.firstPage }
    return slots
  }

  /// What is wrong with the bookkeeping, one line each; empty if nothing.
  package func checkInvariants() -> [String] {
    var faults: [String] = []
    var end = 0
    for chunk in chunks {
      if chunk.firstPage < end { faults.append("chunks overlap at page \(chunk.firstPage)") }
      end = chunk.firstPage + chunk.pageCount
      if chunk.slotCount * chunk.slotByteCount != chunk.pageCount * Self.pageByteCount {
        faults.append("chunk at page \(chunk.firstPage) has odd slots")
      }
    }
    if end > pageCount { faults.append("chunks reach beyond the mapping") }
    for sizeClass in classes {
      let size = sizeClass.slotByteCount
      faults += sizeClass.pool.checkInvariants().map { "\(size): \($0)" }
      let slotCount = chunks.filter { $0.slotByteCount == size }.reduce(0) { $0 + $1.slotCount }
      if slotCount != sizeClass.pool.slotCount { faults.append("\(size): slots without a chunk") }
    }
    return faults
  }
}
