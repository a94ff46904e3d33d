internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// The reads of a plan's blocks that are on disk, under way: into their arena slots, or into memory of their own.
///
/// None of them ever goes into the caller's memory, so a transfer may end while they go on.
struct PlannedReads {
  /// Where a block's slot, or the part of it that was asked for, comes to lie.
  @safe struct Memory {
    let base: UnsafeMutableRawPointer
    let pieces: SlotPieces
    /// Keeps memory of its own; nil for an arena slot.
    let buffer: AlignedBuffer?
    var requests: Range<Int> = 0..<0
    /// Why there are no bytes to look at; `.unsound` when they came, and are not what the catalog promised.
    var failure: FileError?

    /// An arena slot, or memory of its own for the pieces; nil when there is none.
    init?(_ core: StoreCore, _ slot: HostSlot?, _ pieces: SlotPieces) {
      self.pieces = pieces
      if let slot {
        unsafe base = core.hostMemory(of: slot)
        buffer = nil
      } else {
        guard let own = try? AlignedBuffer(byteCount: pieces.byteCount),
          let address = unsafe own.bytes.baseAddress
        else { return nil }
        unsafe base = address
        buffer = own
      }
    }
  }

  private var batch: ReadBatch?
  private var memories: [Int: Memory] = [:]

  /// None.
  init() {}

  /// Starts the reads.
  ///
  /// A block that no memory is to be had for has none, and is a miss.
  init(_ call: RestoreCall) {
    var requests: [ReadRequest] = []
    for (index, planned) in call.plan.enumerated() {
      let first = requests.count
      var memory: Memory?
      switch planned.source {
      case .disk(let place, let slot):
        memory = Self.append(planned.block, place, slot, call, to: &requests)
      case .piece(let place, let slot):
        memory = Self.append(planned.block, place, pieceOf: slot, call, to: &requests)
      case .host, .inline, .nothing: continue
      }
      memory?.requests = first..<requests.count
      memories[index] = memory
    }
    batch =
      requests.isEmpty
      ? nil : call.core.diskTier.startReads(requests, mayReadHere: !call.limit.isBounded)
    call.limit.cancellation?.watch(batch)
  }

  /// The reads of one block: the parts that are needed of a raw slot, or all of an archive slot, which is decoded
  /// and looks like a raw one then.
  private static func append(
    _ block: Int,
    _ place: BlockPlace,
    _ slot: HostSlot?,
    _ call: RestoreCall,
    to requests: inout [ReadRequest]
  ) -> Memory? {
    let core = call.core
    let namespace = call.namespace
    let layout = namespace.layout
    let regions = call.selection.ranges(ofBlock: block)
    let isArchived = place.tier == .archive
    let pieces =
      slot != nil || isArchived
      ? SlotPieces(byteCount: layout.slotByteCount)
      : SlotPieces(layout, regions, isVariable: namespace.identity.regionsAreVariable)
    guard let memory = Memory(core, slot, pieces) else { return nil }
    if isArchived {
      let decoding = unsafe SlotDecoding(
        core.coders,
        place,
        layout,
        regions: regions,
        into: UnsafeMutableRawBufferPointer(start: memory.base, count: layout.slotByteCount),
        owner: memory.buffer
      )
      guard let request = decoding?.request(core.archiveFiles) else { return nil }
      requests.append(request)
      return memory
    }
    for index in 0..<pieces.count {
      let piece = pieces[index]
      unsafe requests.append(
        ReadRequest(
          address: SlotAddress(tier: place.tier, file: place.file, slot: place.slot),
          slotByteCount: layout.slotByteCount,
          offset: piece.slot.lowerBound,
          buffer: UnsafeMutableRawBufferPointer(
            start: memory.base + piece.start,
            count: piece.slot.count
          )
        )
      )
    }
    return memory
  }

  /// The read of what a block's growing copy has not got yet, if anything.
  private static func append(
    _ block: Int,
    _ place: BlockPlace,
    pieceOf slot: HostSlot,
    _ call: RestoreCall,
    to requests: inout [ReadRequest]
  ) -> Memory? {
    guard let copies = call.copies else { return nil }
    let missing = copies.missingBytes(ofBlock: block, upToRegion: call.range.regions.upperBound)
    let pieces = SlotPieces(byteCount: missing.upperBound)
    guard let memory = Memory(call.core, slot, pieces) else { return nil }
    if !missing.isEmpty {
      unsafe requests.append(
        ReadRequest(
          address: SlotAddress(tier: place.tier, file: place.file, slot: place.slot),
          slotByteCount: call.namespace.layout.slotByteCount,
          offset: missing.lowerBound,
          buffer: UnsafeMutableRawBufferPointer(
            start: memory.base + missing.lowerBound,
            count: missing.count
          )
        )
      )
    }
    return memory
  }

  /// Waits for a block's reads: its memory once they are over, nil when none was possible.
  ///
  /// Throws when the limit came first; then `abandon` must follow.
  func wait(_ index: Int, _ limit: TransferLimit) throws(GaveUp) -> Memory? {
    guard var memory = memories[index] else { return nil }
    guard let batch else { return memory }
    for request in memory.requests {
      switch limit.wait(batch, request) {
      case .finished(let error): memory.failure = memory.failure ?? error
      case .unfinished: throw GaveUp()
      }
    }
    return memory
  }

  /// Gives a block's reads up; `release` runs once nothing writes into its memory any more.
  func abandon(_ index: Int, release: @escaping @Sendable () -> Void) {
    guard let batch, let memory = memories[index], !memory.requests.isEmpty else {
      return release()
    }
    // Of an arena slot there is one read; memory of its own lives as long as a read knows it.
    let buffer = memory.buffer
    let first = memory.requests.lowerBound
    for request in memory.requests {
      batch.abandon(request) {
        withExtendedLifetime(buffer) {}
        if request == first { release() }
      }
    }
  }

  /// The limit came before the read was over.
  struct GaveUp: Error {}
}
