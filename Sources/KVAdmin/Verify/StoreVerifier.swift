internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVStore
internal import KVTiers

/// Walks a store and compares everything with everything, in short transactions; see `Store.verify`.
struct StoreVerifier {
  let core: StoreCore
  let options: VerifyOptions
  var audit: CatalogAudit
  var result = Verification()
  private var checks: [NamespaceID: SlotCheck] = [:]
  private var slotSizes: [NamespaceID: Int] = [:]

  /// A block costs about seven look-ups, so that a transaction stays below 1,000 rows.
  private static let rowCountMax = 128
  /// Bytes of slots that are read at once.
  private static let windowByteCount = 32 << 20
  private static let suspectCountMax = 4096

  init(core: StoreCore, options: VerifyOptions) {
    self.core = core
    self.options = options
    audit = CatalogAudit(
      findingCountMax: options.findingCountMax,
      keyBitCount: core.configuration.keyBitCount
    )
  }

  mutating func run(_ progress: (MaintenanceProgress) -> Void) throws(StoreError) -> Verification {
    try loadNamespaces()
    let total = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.rowCountOfAllTables()
    }
    while true {
      let isMore = try step()
      checkSlots(of: audit.blocks)
      progress(
        MaintenanceProgress(
          activity: "checking table \(audit.tableName ?? "totals")",
          doneCount: audit.rowCount,
          totalCount: total
        )
      )
      if !isMore { break }
    }
    try checkClaims()
    try checkWhole()
    try checkFiles()
    result.rowCount = audit.rowCount
    result.blockCount = audit.blockCount
    result.runCount = audit.runCount
    result.findings = audit.findings.findings
    result.findingCount = audit.findings.count
    return result
  }

  /// False when all tables are through.
  private mutating func step() throws(StoreError) -> Bool {
    var next = audit
    defer { audit = next }
    return try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.auditStep(&next, rowCountMax: Self.rowCountMax)
    }
  }

  private mutating func damageIsAFinding(
    _ place: String,
    _ body: (ReadTransaction, inout CatalogAudit) throws(CatalogError) -> Void
  ) throws(StoreError) {
    var next = audit
    defer { audit = next }
    do throws(CatalogError) {
      try core.catalog.read { (transaction) throws(CatalogError) in
        try body(transaction, &next)
      }
    } catch {
      guard error.isDamage else { throw StoreError(error) }
      next.findings.add(.unreadable, place, "the rows cannot be read")
    }
  }

  private mutating func loadNamespaces() throws(StoreError) {
    var rows: [NamespaceRow] = []
    try damageIsAFinding("namespaces") { (transaction, _) throws(CatalogError) in
      for id in try transaction.namespaceIDs() {
        // A damaged row is a finding of the walk.
        do throws(CatalogError) {
          if let row = try transaction.namespace(id) { rows.append(row) }
        } catch {
          guard error.isDamage else { throw error }
        }
      }
    }
    result.namespaceCount = rows.count
    for row in rows {
      checks[row.id] = SlotCheck(storeUUID: core.storeUUID, namespace: row)
      slotSizes[row.id] = Int(row.slotByteCount)
    }
  }

  // MARK: Slots

  /// Reads the slots of blocks in windows, without a transaction, and compares them with their rows.
  private mutating func checkSlots(of blocks: [AuditedBlock]) {
    var window: [(block: AuditedBlock, place: BlockPlace)] = []
    var byteCount = 0
    for block in blocks {
      for place in block.places {
        if place.isInline {
          checkInline(block, place)
          continue
        }
        window.append((block, place))
        byteCount += readByteCount(block, place)
        if byteCount >= Self.windowByteCount {
          checkWindow(window)
          window = []
          byteCount = 0
        }
      }
    }
    checkWindow(window)
  }

  private func readByteCount(_ block: AuditedBlock, _ place: BlockPlace) -> Int {
    if options.checksPayload, place.tier == .archive,
      let headerByteCount = checks[block.namespace]?.namespace.headerByteCount
    {
      return roundUp(Int(headerByteCount) + Int(place.storedByteCount), to: 4096)
    }
    return options.checksPayload
      ? slotSizes[block.namespace] ?? 4096
      : Int(checks[block.namespace]?.namespace.headerByteCount ?? 4096)
  }

  private mutating func checkWindow(_ window: [(block: AuditedBlock, place: BlockPlace)]) {
    var buffers: [AlignedBuffer?] = []
    var requests: [ReadRequest] = []
    var requestIndex: [Int?] = []
    for (block, place) in window {
      let buffer = try? AlignedBuffer(byteCount: readByteCount(block, place))
      buffers.append(buffer)
      let size =
        place.tier == .archive
        ? core.archiveFiles.slotByteCount(place.file) : slotSizes[block.namespace]
      guard let buffer, let slotByteCount = size, slotByteCount > 0,
        unsafe buffer.bytes.count <= slotByteCount
      else {
        requestIndex.append(nil)
        continue
      }
      requestIndex.append(requests.count)
      unsafe requests.append(
        ReadRequest(
          address: SlotAddress(tier: place.tier, file: place.file, slot: place.slot),
          slotByteCount: slotByteCount,
          offset: 0,
          buffer: buffer.bytes
        )
      )
    }
    let batch = requests.isEmpty ? nil : core.diskTier.startReads(requests)
    for (index, (block, place)) in window.enumerated() {
      guard let request = requestIndex[index], let buffer = buffers[index] else { continue }
      let error = batch?.wait(request)
      guard let problem = unsafe problem(buffer.readOnly, error, block, place) else {
        count(block, place)
        continue
      }
      // Between the row and the slot the block may have left: only what still says the same counts.
      guard isStill(block, place) else {
        result.movedCount += 1
        continue
      }
      let again = core.diskTier.startReads([requests[request]]).wait(0)
      guard unsafe self.problem(buffer.readOnly, again, block, place) != nil else {
        count(block, place)
        continue
      }
      guard isStill(block, place) else {
        result.movedCount += 1
        continue
      }
      add(problem, block, place)
    }
  }

  private func problem(
    _ bytes: UnsafeRawBufferPointer,
    _ error: FileError?,
    _ block: AuditedBlock,
    _ place: BlockPlace
  ) -> (kind: Finding.Kind, text: String)? {
    if let error {
      return error == .endOfFile
        ? (.slotFile, "the file ends before the slot does")
        : (.unreadable, "the slot cannot be read: error \(error.errno)")
    }
    guard let check = checks[block.namespace] else { return nil }
    let problem = unsafe check.problem(
      in: bytes,
      of: block,
      at: place,
      checksPayload: options.checksPayload
    )
    guard problem == nil, options.checksPayload, place.tier == .archive else { return problem }
    let isGood = core.coders.withDecoder { decoder in
      unsafe check.decodes(bytes, payloadByteCount: Int(block.payloadByteCount), decoder)
    }
    return isGood ?? true ? nil : (.payload, "the frames cannot be decoded")
  }

  private mutating func checkInline(_ block: AuditedBlock, _ place: BlockPlace) {
    guard let check = checks[block.namespace] else { return }
    let copy = try? core.catalogRead { (transaction) throws(CatalogError) in
      unsafe try transaction.inlinePayload(block.namespace, block.at) { unsafe Array($0) }
    }
    // A payload that is gone or whose row is damaged is a finding of its table.
    guard let bytes = copy ?? nil else {
      if !isStill(block, place) { result.movedCount += 1 }
      return
    }
    let problem = unsafe bytes.withUnsafeBytes { buffer in
      unsafe check.problem(in: buffer, of: block, at: place, checksPayload: options.checksPayload)
    }
    guard let problem else { return count(block, place) }
    guard isStill(block, place) else {
      result.movedCount += 1
      return
    }
    add(problem, block, place)
  }

  private mutating func count(_ block: AuditedBlock, _ place: BlockPlace) {
    result.headerCount += 1
    guard options.checksPayload else { return }
    result.payloadCount += 1
    result.payloadByteCount += UInt64(place.storedByteCount)
  }

  private mutating func add(
    _ problem: (kind: Finding.Kind, text: String),
    _ block: AuditedBlock,
    _ place: BlockPlace
  ) {
    let address = SlotAddress(tier: place.tier, file: place.file, slot: place.slot)
    let slot = place.isInline ? "payloads" : address.described
    audit.findings.add(
      problem.kind,
      "\(slot): namespace \(block.namespace.rawValue), run \(block.at.run.rawValue), "
        + "position \(block.at.position)",
      problem.text
    )
  }

  private func isStill(_ block: AuditedBlock, _ place: BlockPlace) -> Bool {
    let row = try? core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.row(block.namespace, block.at)
    }
    return (row ?? nil)?.places.contains(place) ?? false
  }

  // MARK: Slots that two claim, or nobody

  private mutating func checkClaims() throws(StoreError) {
    let suspects = audit.slotsClaimedAgain
    guard !suspects.isEmpty else { return }
    // A block that left and one that came may have had the same slot: only two rows at one time are a fault.
    var claimants: [SlotAddress: [(NamespaceID, BlockPosition)]] = [:]
    var last: (NamespaceID, BlockPosition)?
    repeat {
      let from = last
      var found: [(SlotAddress, NamespaceID, BlockPosition)] = []
      last = try core.catalogRead { (transaction) throws(CatalogError) in
        try transaction.claimants(of: suspects, after: from, rowCountMax: 1000) {
          found.append(($2, $0, $1))
        }
      }
      for (slot, namespace, at) in found { claimants[slot, default: []].append((namespace, at)) }
    } while last != nil
    for (slot, blocks) in claimants where blocks.count > 1 {
      let holders = try core.catalogRead { (transaction) throws(CatalogError) in
        var holders: [String] = []
        for (namespace, at) in blocks.prefix(500) {
          guard let row = try transaction.row(namespace, at) else { continue }
          if row.places.contains(where: {
            !$0.isInline && $0.tier == slot.tier && $0.file == slot.file && $0.slot == slot.slot
          }) {
            holders.append("run \(at.run.rawValue), position \(at.position)")
          }
        }
        return holders
      }
      guard holders.count > 1 else { continue }
      audit.findings.add(.slotTwice, slot.described, holders.joined(separator: "; "))
    }
  }

  /// Sums, and slots that no block claims.
  private mutating func checkWhole() throws(StoreError) {
    var slots: [SlotAddress] = []
    try damageIsAFinding("namespaces") { (transaction, audit) throws(CatalogError) in
      try transaction.auditTotals(&audit)
      slots = try transaction.slotsWithoutBlock(&audit, limit: Self.suspectCountMax)
    }
    result.wasWritten = audit.sawCommits
    if audit.sawCommits {
      var confirmed: [SlotAddress] = []
      for slot in slots where try isOfNobody(slot) { confirmed.append(slot) }
      slots = confirmed
    }
    for (file, lost) in Dictionary(grouping: slots, by: \.file).sorted(by: { $0.key < $1.key }) {
      guard let first = lost.first else { continue }
      audit.findings.add(
        .slotOfNobody,
        first.described,
        "\(lost.count) slots of file \(file) are marked as used and hold no block"
      )
    }
  }

  /// Beside a writer: what the slot says it holds is looked up, in a snapshot that is as new as the slot's contents.
  private func isOfNobody(_ slot: SlotAddress) throws(StoreError) -> Bool {
    for _ in 0..<3 {
      let (files, before) = try core.catalogRead { (transaction) throws(CatalogError) in
        (try transaction.slotFiles(), try transaction.snapshotID())
      }
      guard let file = files.first(where: { $0.tier == slot.tier && $0.file == slot.file }) else {
        return false
      }
      let header = readHeader(slot, Int(file.slotByteCount))
      let (answer, after) = try core.catalogRead { (transaction) throws(CatalogError) in
        (try transaction.isSlotOfNobody(slot, heldBy: header), try transaction.snapshotID())
      }
      guard answer else { return false }
      if after == before { return true }
    }
    return false
  }

  private func readHeader(
    _ slot: SlotAddress,
    _ slotByteCount: Int
  ) -> (namespace: NamespaceID, blockKey: BlockKey)? {
    guard let buffer = try? AlignedBuffer(byteCount: min(slotByteCount, 128 << 10)) else {
      return nil
    }
    let request = unsafe ReadRequest(
      address: slot,
      slotByteCount: slotByteCount,
      offset: 0,
      buffer: buffer.bytes
    )
    guard core.diskTier.startReads([request]).wait(0) == nil,
      let header = unsafe SlotHeaderView(buffer.readOnly)
    else { return nil }
    return (header.namespaceID, header.blockKey)
  }
}
