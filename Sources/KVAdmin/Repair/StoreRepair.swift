internal import Glibc
internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVStore
internal import KVTiers

/// Rebuilds a catalog from what is provably intact.
///
/// That is slots, whose headers say whose they are, `identities.kvs`, and single rows of the old catalog that their checksums prove.
/// The old catalog is never trusted as a whole, so how it is damaged does not matter.
///
/// 1. Read the identities, and what the old catalog's pages can prove.
/// 2. Read every slot's header; what is another store's, removed or expired is left out.
/// 3. From each root down: the newest copy of each block whose bytes verify goes into the new catalog, parents first.
/// 4. The new catalog takes the old one's name.
struct StoreRepair {
  let configuration: StoreConfiguration
  let isDryRun: Bool
  /// A catalog that is sound is replaced too.
  let isForced: Bool
  /// Blocks in an archive that is not there are given up.
  let withoutArchive: Bool
  let folder: StoreFolder
  let archive: ArchiveFolder.Found
  var result = Repair()

  var meta: StoreMeta?
  var namespaces: [BlockKey: RepairNamespace] = [:]
  var removals: [IdentityFile.Removal] = []
  var identities: [IdentityFile.Identity] = []
  /// The old catalog's file, for inline payloads.
  var oldCatalog: AlignedBuffer?
  /// What was given so far, by all that tells.
  var numbers = GivenNumbers(owner: 1, event: 1, generation: 1)
  /// Far beyond what a store reaches in its life.
  static let generationMax: UInt64 = 1 << 61
  /// The same of the numbers of namespaces and owners.
  static let numberMax: UInt32 = 1 << 30
  var slotFiles: [SlotFileRow] = []
  /// By file number.
  var archiveSlotSizes: [UInt32: Int] = [:]
  let coders = SlotCoders()
  var unusableSlotFiles: [String] = []
  /// What of the old catalog goes into the new one beside the blocks.
  var portable = PortableRows()
  /// Newest first.
  var candidates: [BlockID: [RepairCandidate]] = [:]
  /// Keys of the blocks after each block.
  var children: [BlockID: [BlockKey]] = [:]

  /// A block of a namespace, which its root key names.
  struct BlockID: Hashable {
    let rootKey: BlockKey
    let blockKey: BlockKey
  }

  var files: any Storage { folder.files }

  init(
    _ configuration: StoreConfiguration,
    isDryRun: Bool,
    isForced: Bool,
    withoutArchive: Bool
  ) throws(StoreError) {
    self.configuration = configuration
    self.isDryRun = isDryRun
    self.isForced = isForced
    self.withoutArchive = withoutArchive
    folder = try StoreFolder.existing(configuration)
    do throws(FileError) { archive = try ArchiveFolder.find(folder) } catch {
      throw StoreError(error, .folder)
    }
  }

  mutating func run(_ progress: (MaintenanceProgress) -> Void) throws(StoreError) -> Repair {
    let locks = try RepairLocks(folder)
    defer { withExtendedLifetime(locks) {} }
    guard withoutArchive || !archive.isAway && !archive.isForeign else {
      throw .locked(archive.isAway ? .archiveAway : .archiveOfAnother)
    }
    do throws(FileError) {
      try readOldCatalog()
    } catch {
      throw StoreError(error, .openCatalog)
    }
    do throws(FileError) {
      try readIdentities()
    } catch {
      throw StoreError(error, .identities)
    }
    guard meta != nil else { throw .corrupt(.nothingToRepair) }
    // With slot files set aside, rows are missing: they are what a repair is for.
    if result.catalogIsSound {
      do throws(FileError) { result.catalogIsSound = try !hasSetAside() } catch {
        throw StoreError(error, .readSlot)
      }
    }
    // With an archive that is given up there is something to repair: its blocks' rows.
    let isPart = archive.isAway || archive.isForeign
    if result.catalogIsSound, !isPart, !isForced, !isDryRun {
      result.isRefused = true
      return result
    }
    let tier = try openTier()
    defer { tier.close() }
    do throws(FileError) {
      if !isDryRun {
        for tier in [try folder.subfolder("slots"), archive.files] { try takeBackSetAside(tier) }
      }
      try readSlotFiles(tier, progress)
      try readArchiveFiles(tier, progress)
    } catch {
      throw StoreError(error, .readSlot)
    }
    readInlinePayloads()
    try rebuild(tier, progress)
    return result
  }

  private func openTier() throws(StoreError) -> DiskTier {
    do throws(FileError) {
      return try DiskTier(
        folders: [.disk: try folder.subfolder("slots"), .archive: archive.files]
          .compactMapValues { $0 },
        direct: !configuration.bufferedIO
      )
    } catch {
      throw StoreError(error, .openSlotFile)
    }
  }

  // MARK: What the slots are read with

  private mutating func readOldCatalog() throws(FileError) {
    guard try files.fileExists(StoreFolder.catalogName) else { return }
    let file = try files.openFile(StoreFolder.catalogName, mode: .readOnly, direct: false)
    defer { file.close() }
    let buffer = try AlignedBuffer(byteCount: Int(try file.byteCount()))
    unsafe try file.read(into: buffer.bytes, at: 0)
    let salvage = unsafe CatalogSalvage(buffer.readOnly)
    meta = salvage.meta
    numbers = numbers.joined(with: salvage.numbers)
    for (rootKey, row) in salvage.namespaces {
      guard unsafe row.identityRecord.withUnsafeBytes({ xxh3Key($0) }) == rootKey else { continue }
      namespaces[rootKey] = RepairNamespace(row)
    }
    inlinePayloads = salvage.payloads
    let tree = unsafe CatalogTree(buffer.readOnly)
    // Quotas and times to live as they are now, not as a free page has them.
    for row in tree.namespaces where namespaces[row.rootKey] != nil {
      namespaces[row.rootKey] = RepairNamespace(row)
    }
    let live = Set(tree.namespaces.map(\.rootKey))
    namespacesInDoubt = Set(namespaces.keys).subtracting(live)
    portable = tree.portable
    result.catalogIsSound = tree.isSound
    result.kept.pinCount = portable.pins.count
    result.kept.sessionCount = portable.sessionCount
    result.kept.historyCount = portable.historyCount
    oldCatalog = buffer
  }

  private var inlinePayloads: [Range<Int>] = []
  /// Root keys whose row may be one that was removed.
  private var namespacesInDoubt: Set<BlockKey> = []

  private func hasSetAside() throws(FileError) -> Bool {
    for tier in [try folder.subfolder("slots"), archive.files] {
      if try tier?.list(".").contains(where: { DiskTier.strayFile($0)?.kind == .setAside }) == true
      {
        return true
      }
    }
    return false
  }

  private mutating func readIdentities() throws(FileError) {
    let file = try IdentityFile.read(files, storeUUID: meta?.storeUUID)
    meta = file.store ?? meta
    removals = file.removals
    identities = file.identities
    if let noted = file.numbers, max(noted.owner, noted.namespace) < Self.numberMax,
      max(noted.event, noted.generation) < Self.generationMax
    {
      numbers = numbers.joined(with: noted)
    }
    for owner in OwnerFiles(try folder.subfolder("owners")).owners().dead
    where owner.rawValue < Self.numberMax {
      numbers.owner = max(numbers.owner, owner.rawValue + 1)
    }
    guard let meta else { return }
    if file.damagedByteCount == 0, let end = file.numbers?.namespace {
      // Rows on free pages, of namespaces that have left: what was removed from them must not come back.
      let known = Set(file.identities)
      for rootKey in namespacesInDoubt {
        guard let row = namespaces[rootKey]?.row, row.id.rawValue < end,
          !known.contains(IdentityFile.Identity(id: row.id, record: row.identityRecord))
        else { continue }
        namespaces[rootKey] = nil
      }
    }
    for identity in file.identities where identity.id.rawValue < Self.numberMax {
      numbers.namespace = max(numbers.namespace, identity.id.rawValue + 1)
      // An identity that had left and came back has a new number, and its blocks name that.
      if let known = namespaces[identity.rootKey] {
        guard namespacesInDoubt.contains(identity.rootKey), known.row.id < identity.id else {
          continue
        }
      }
      namespacesInDoubt.insert(identity.rootKey)
      guard let read = NamespaceIdentity(record: identity.record) else { continue }
      let layout = SlotLayout(
        regionByteCounts: read.regionByteCounts,
        wordsPerBlock: read.wordsPerBlock,
        extraByteCountMax: read.extraByteCountMax
      )
      let isInline = read.payloadByteCountMax <= Int(clamping: meta.inlinePayloadBytesMax)
      namespaces[identity.rootKey] = RepairNamespace(
        NamespaceRow(
          id: identity.id,
          rootKey: identity.rootKey,
          identityRecord: identity.record,
          slotByteCount: isInline ? 0 : UInt32(layout.slotByteCount),
          headerByteCount: UInt32(layout.headerByteCount),
          wordsPerBlock: UInt32(read.wordsPerBlock)
        )
      )
    }
    for removal in removals where removal.generationFloor < Self.generationMax {
      numbers.generation = max(numbers.generation, removal.generationFloor)
    }
  }

  // MARK: Headers

  /// Files that an open found without their rows get numbers again: what is in them may be sound.
  private func takeBackSetAside(_ tier: (any Storage)?) throws(FileError) {
    guard let tier else { return }
    let strays = try tier.list(".").compactMap(DiskTier.strayFile)
    var next = strays.reduce(UInt32(0)) { max($0, $1.file.file) }
    for stray in strays.sorted(by: { $0.name < $1.name }) where stray.kind == .setAside {
      guard next < .max else { return }
      next += 1
      try tier.rename(
        stray.name,
        to: DiskTier.name(of: SlotFileID(tier: stray.file.tier, file: next))
      )
    }
  }

  private mutating func readSlotFiles(
    _ tier: DiskTier,
    _ progress: (MaintenanceProgress) -> Void
  ) throws(FileError) {
    let sizes = Set(namespaces.values.map { Int($0.row.slotByteCount) }).subtracting([0])
    guard let slots = try folder.subfolder("slots") else { return }
    let names = try slots.list(".").sorted()
    for (index, name) in names.enumerated() {
      guard name.hasSuffix(".kvs"), name.utf8.count == 14, name.hasPrefix("02"),
        let number = UInt32(name.dropFirst(2).dropLast(4), radix: 16)
      else { continue }
      let file = try slots.openFile(name, mode: .readOnly, direct: false)
      let byteCount = Int(clamping: try file.byteCount())
      file.close()
      var best: (size: Int, found: [RepairCandidate])?
      for size in sizes.sorted() where byteCount >= size {
        let found = readHeaders(tier, number, slotByteCount: size, slotCount(byteCount, size))
        // A header at a multiple of another size does not belong to it: its namespace's size decides.
        if found.count > best?.found.count ?? 0 { best = (size, found) }
        progress(
          MaintenanceProgress(
            activity: "reading slot headers",
            doneCount: index,
            totalCount: names.count
          )
        )
      }
      guard let best else {
        unusableSlotFiles.append(name)
        continue
      }
      result.slotCount += slotCount(byteCount, best.size)
      slotFiles.append(
        SlotFileRow(
          tier: .disk,
          file: number,
          slotByteCount: UInt32(best.size),
          slotCount: UInt32(slotCount(byteCount, best.size))
        )
      )
      for candidate in best.found { add(candidate) }
    }
  }

  /// Slots of a file of this length; what is longer than the store makes them is not looked at beyond.
  func slotCount(_ byteCount: Int, _ slotByteCount: Int) -> Int {
    min(byteCount / slotByteCount, DiskTier.slotCountMax)
  }

  /// The headers in a slot file, were its slots of this size, of namespaces whose slots are.
  private mutating func readHeaders(
    _ tier: DiskTier,
    _ file: UInt32,
    slotByteCount: Int,
    _ slotCount: Int
  ) -> [RepairCandidate] {
    let headerByteCount =
      namespaces.values.filter { Int($0.row.slotByteCount) == slotByteCount }
      .map { Int($0.row.headerByteCount) }.max() ?? 4096
    guard let buffer = try? AlignedBuffer(byteCount: headerByteCount) else { return [] }
    var found: [RepairCandidate] = []
    for slot in 0..<slotCount {
      let address = SlotAddress(tier: .disk, file: file, slot: UInt32(slot))
      let request = unsafe ReadRequest(
        address: address,
        slotByteCount: slotByteCount,
        offset: 0,
        buffer: buffer.bytes
      )
      guard tier.startReads([request]).wait(0) == nil,
        let header = unsafe SlotHeaderView(buffer.readOnly),
        let candidate = candidate(header, .slot(address)),
        let namespace = namespaces[header.rootKey],
        Int(namespace.row.slotByteCount) == slotByteCount
      else { continue }
      found.append(candidate)
    }
    return found
  }

  private mutating func readInlinePayloads() {
    guard let oldCatalog else { return }
    for range in inlinePayloads {
      let bytes = unsafe UnsafeRawBufferPointer(rebasing: oldCatalog.readOnly[range])
      guard let header = unsafe SlotHeaderView(bytes),
        let candidate = candidate(header, .inline(range)),
        namespaces[header.rootKey]?.row.slotByteCount == 0
      else { continue }
      add(candidate)
    }
  }

  /// What a header promises, if it is this store's and of a namespace that is known.
  mutating func candidate(
    _ header: SlotHeaderView,
    _ source: RepairCandidate.Source
  ) -> RepairCandidate? {
    guard let meta else { return nil }
    // Nobody gives such a number: it is made up, and there would be none to go on with.
    guard header.generation.rawValue < Self.generationMax else {
      result.unknownCount += 1
      return nil
    }
    numbers.generation = max(numbers.generation, header.generation.rawValue &+ 1)
    guard unsafe header.storeUUID.elementsEqual(meta.storeUUID),
      let namespace = namespaces[header.rootKey], namespace.row.id == header.namespaceID,
      header.codec == 0 || header.tier == .archive && header.codec == SlotEncoder.framesCodec,
      header.regionCount == namespace.identity.regionByteCounts.count,
      header.wordByteCount == namespace.identity.wordsPerBlock * 4
    else {
      result.unknownCount += 1
      return nil
    }
    let now = configuration.clock.realTimeNanoseconds()
    if header.expiry != 0, header.expiry < now {
      result.expiredCount += 1
      return nil
    }
    return RepairCandidate(
      source: source,
      rootKey: header.rootKey,
      blockKey: header.blockKey,
      parentKey: header.parentKey,
      generation: header.generation.rawValue
    )
  }

  mutating func add(_ candidate: RepairCandidate) {
    let id = BlockID(rootKey: candidate.rootKey, blockKey: candidate.blockKey)
    if candidates[id] == nil {
      let parent = BlockID(rootKey: candidate.rootKey, blockKey: candidate.parentKey)
      children[parent, default: []].append(candidate.blockKey)
    }
    candidates[id, default: []].append(candidate)
  }
}
