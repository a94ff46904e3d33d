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
    let requests: Range<Int>
    /// Why there are no bytes to look at; `.unsound` when they came, and are not what the catalog promised.
    var failure: FileError?
  }

  private let batch: ReadBatch?
  private var memories: [Int: Memory] = [:]

  /// Starts the reads.
  ///
  /// A block that no memory is to be had for has none, and is a miss.
  init(
    _ core: StoreCore,
    _ plan: [PlannedBlock],
    _ namespace: NamespaceCore,
    _ selection: RegionSelection,
    limit: TransferLimit
  ) {
    var requests: [ReadRequest] = []
    for (index, planned) in plan.enumerated() {
      guard case .disk(let place, let promoteTo) = planned.source else { continue }
      let regions = selection.ranges(ofBlock: planned.block)
      if place.tier == .archive {
        let read = Self.archiveRead(
          core,
          place,
          promoteTo: promoteTo,
          namespace,
          regions: regions,
          request: requests.count
        )
        if let (request, memory) = read {
          requests.append(request)
          memories[index] = memory
        }
        continue
      }
      let pieces =
        promoteTo != nil
        ? SlotPieces(byteCount: namespace.layout.slotByteCount)
        : SlotPieces(namespace.layout, regions, isVariable: namespace.identity.regionsAreVariable)
      var buffer: AlignedBuffer?
      let base: UnsafeMutableRawPointer
      if let promoteTo {
        unsafe base = core.hostMemory(of: promoteTo, namespace)
      } else {
        guard let own = try? AlignedBuffer(byteCount: pieces.byteCount),
          let address = unsafe own.bytes.baseAddress
        else { continue }
        buffer = own
        unsafe base = address
      }
      let first = requests.count
      for index in 0..<pieces.count {
        let piece = pieces[index]
        unsafe requests.append(
          ReadRequest(
            address: SlotAddress(tier: place.tier, file: place.file, slot: place.slot),
            slotByteCount: namespace.layout.slotByteCount,
            offset: piece.slot.lowerBound,
            buffer: UnsafeMutableRawBufferPointer(
              start: base + piece.start,
              count: piece.slot.count
            )
          )
        )
      }
      unsafe memories[index] = Memory(
        base: base,
        pieces: pieces,
        buffer: buffer,
        requests: first..<requests.count
      )
    }
    batch =
      requests.isEmpty
      ? nil : core.diskTier.startReads(requests, mayReadHere: !limit.isBounded)
    limit.cancellation?.watch(batch)
  }

  /// Waits for a block's reads: its memory once they are over, nil when none was possible.
  ///
  /// Throws when the limit came first; then `abandon` must follow.
  func wait(_ index: Int, _ limit: TransferLimit) throws(GaveUp) -> Memory? {
    guard let batch, var memory = memories[index] else { return nil }
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
    guard let batch, let memory = memories[index] else { return release() }
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
