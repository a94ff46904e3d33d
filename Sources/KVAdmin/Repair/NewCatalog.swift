internal import KVCatalog
internal import KVCore
internal import KVFile
internal import KVStore

/// The catalog that a repair writes: not synced before it is whole.
final class NewCatalog {
  /// A block whose bytes have been verified, as its slot describes it.
  struct Block {
    let rootKey: BlockKey
    let blockKey: BlockKey
    let parentKey: BlockKey
    let place: BlockPlace
    let words: [UInt8]
    let extra: [UInt8]
    let payloadByteCount: UInt32
    let blockExpiry: BlockExpiry
    let createdSeconds: UInt32
    let priority: UInt8
    let inlinePayload: [UInt8]?
  }

  private let files: any Storage
  private let name: String
  private let catalog: Catalog
  private let configuration: StoreConfiguration
  private var owner = OwnerID(rawValue: 1)
  private var positions: [StoreRepair.BlockID: BlockPosition] = [:]
  /// Path ends by the generation of their contents: the newest were used last, as far as one can tell.
  private var ends: [StoreRepair.BlockID: (namespace: NamespaceID, generation: UInt64)] = [:]

  /// `name` is a file in a folder of the store's.
  init(
    _ folder: StoreFolder,
    _ name: String,
    _ meta: StoreMeta,
    _ configuration: StoreConfiguration
  ) throws(StoreError) {
    files = folder.files
    self.name = name
    self.configuration = configuration
    var options: CatalogOptions
    do throws(FileError) { options = try folder.catalogOptions(name, creates: true) } catch {
      throw StoreError(error, .openCatalog)
    }
    options.mapByteCount = Int(clamping: meta.catalogBytes)
    options.durability = .buffered
    options.lock = .none
    do throws(CatalogError) { catalog = try Catalog(options, create: meta) } catch {
      throw StoreError(error, .openCatalog)
    }
  }

  private func write(
    _ body: (WriteTransaction) throws(CatalogError) -> Void
  ) throws(StoreError) {
    do throws(CatalogError) {
      try catalog.write(timeNanoseconds: configuration.clock.realTimeNanoseconds(), body)
    } catch {
      throw StoreError(error)
    }
  }

  /// Its namespaces and slot files; numbers go on behind those that were given.
  func begin(
    namespaces: [NamespaceRow],
    slotFiles: [SlotFileRow],
    numbers: GivenNumbers
  ) throws(StoreError) {
    try write { (transaction) throws(CatalogError) in
      // Before the first event, so that no number is left out. A process that was killed may have written with generations that
      // nobody has seen.
      var numbers = numbers
      numbers.generation += 1 << 20
      transaction.raiseCounters(to: numbers)
      owner = transaction.nextOwner()
      for row in namespaces { try transaction.adoptNamespace(row) }
      for file in slotFiles {
        try transaction.adoptSlotFile(
          tier: file.tier,
          file: file.file,
          slotByteCount: file.slotByteCount,
          slotCount: file.slotCount
        )
      }
    }
  }

  /// Publishes blocks, parents before children.
  func publish(
    _ blocks: [Block],
    _ namespaces: [BlockKey: RepairNamespace]
  ) throws(StoreError) {
    guard !blocks.isEmpty else { return }
    try write { (transaction) throws(CatalogError) in
      for block in blocks {
        guard let namespace = namespaces[block.rootKey] else { continue }
        try publish(block, namespace.row.id, transaction)
      }
    }
  }

  private func publish(
    _ block: Block,
    _ namespace: NamespaceID,
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    let id = StoreRepair.BlockID(rootKey: block.rootKey, blockKey: block.blockKey)
    let parentID = StoreRepair.BlockID(rootKey: block.rootKey, blockKey: block.parentKey)
    let parent = block.parentKey == block.rootKey ? .root : positions[parentID]
    guard let parent else { return }
    if !block.place.isInline {
      let slot = SlotAddress(tier: block.place.tier, file: block.place.file, slot: block.place.slot)
      guard try transaction.adoptSlot(slot, owner: owner) else { return }
    }
    var failure: CatalogError?
    let outcome: PublishOutcome? = unsafe block.words.withUnsafeBytes { words in
      unsafe block.extra.withUnsafeBytes { extra in
        unsafe (block.inlinePayload ?? []).withUnsafeBytes { payload in
          var new = unsafe NewBlock(
            blockKey: block.blockKey,
            parent: parent,
            words: words,
            extra: extra,
            payloadByteCount: block.payloadByteCount,
            createdSeconds: block.createdSeconds,
            place: block.place,
            inlinePayload: block.place.isInline ? payload : nil
          )
          new.blockExpiry = block.blockExpiry
          new.priority = block.priority
          do throws(CatalogError) {
            return try transaction.publish(namespace, new, owner: owner)
          } catch {
            failure = error
            return nil
          }
        }
      }
    }
    if let failure { throw failure }
    guard case .stored(let position) = outcome else {
      if !block.place.isInline {
        try transaction.releaseReservation(
          [SlotAddress(tier: block.place.tier, file: block.place.file, slot: block.place.slot)],
          owner: owner
        )
      }
      return
    }
    positions[id] = position
    ends[parentID] = nil
    ends[id] = (namespace, block.place.generation.rawValue)
  }

  /// Ends it: everything is on disk.
  ///
  /// Takes over what of the old catalog means the same here; returns how many pins hold.
  func finish(
    _ rows: PortableRows,
    rootKeys: [NamespaceID: BlockKey]
  ) throws(StoreError) -> Int {
    var pinCount = 0
    try write { (transaction) throws(CatalogError) in
      pinCount = try transaction.adopt(rows) { namespace, blockKey in
        rootKeys[namespace].flatMap {
          positions[StoreRepair.BlockID(rootKey: $0, blockKey: blockKey)]
        }
      }
      for (id, end) in ends.sorted(by: { $0.value.generation < $1.value.generation }) {
        if let position = positions[id] {
          _ = try transaction.touch(end.namespace, pathEnd: position)
        }
      }
      try transaction.setClean()
    }
    catalog.close()
    do throws(FileError) {
      let file = try files.openFile(name, mode: .existing, direct: false)
      defer { file.close() }
      try file.sync()
    } catch {
      throw StoreError(error, .openCatalog)
    }
    return pinCount
  }
}
