internal import Glibc
internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

/// One open store of this process: what all handles on a folder share.
///
/// Locks and threads: docs/architecture.md, "Concurrency".
final class StoreCore: Sendable {
  let configuration: StoreConfiguration
  /// Left once the catalog is closed: LMDB has its lock file there.
  let sharedMemory: SharedMemory
  let catalog: Catalog
  let diskTier: DiskTier
  let hostMemoryBase: HostMemory
  let state: Monitor<StoreState>
  /// Shared memory; what this process adds to it is guarded by the state lock.
  nonisolated(unsafe) let leases: LeaseTable
  /// Shared memory, behind the leases.
  let intents: EvictionIntents
  /// Shared memory, behind that.
  let processMemory: ProcessMemoryTable
  let time: StoreTime
  let owner: OwnerID
  let ownerFiles: OwnerFiles
  let storeUUID: [UInt8]
  /// Bytes that slot files may take: the bound less the catalog's map and room for the small files.
  let slotBytesCapacity: Int
  let slotFileBytes: Int
  /// Bytes that the archive's slot files may take; 0 = nothing is moved there.
  let archiveBytesCapacity: Int
  let coders = SlotCoders()
  let admission: Monitor<Admission>
  /// nil = the least recently used leave first.
  let density: DensityEviction?
  /// Of the archive's files, as far as they were looked up.
  let archiveSlotSizes = Monitor<[UInt32: Int]>([:])
  let effectiveHostBytes: Int
  /// Restores that were started run two at a time: one copies while the other waits for its reads.
  let restoreQueue = ServicePool(threadCount: 2, jobCountMax: 1024)
  /// Offloads run in the order in which they were started: a block's parent comes first.
  let offloadQueue = ServicePool(threadCount: 1, jobCountMax: 1024)
  /// Prefetches run one after the other, so that they take no more than a window of the arena at a time.
  let prefetchQueue = ServicePool(threadCount: 1, jobCountMax: 64)
  let prefetchCancellation = Cancellation()
  /// What `explain` knows of removals; a leaf lock.
  let removalHistory = Monitor(RemovalHistory())
  /// Of the handles that are open; a leaf lock.
  let ledgers = Monitor(FlushLedgers())
  let deviceMeter = DeviceMeter()
  /// A leaf lock.
  let sessionLog = Monitor(SessionLog())
  /// A leaf lock.
  let offloadTimes = Monitor(LatencyHistogram())
  private let writerBox = Monitor<Writer?>(nil)
  private let followerBox = Monitor<EventFollower?>(nil)
  private let poisoned = AtomicFlag(false)
  private let forkGeneration = ForkGeneration.noted()
  private let commitCount = Monitor<UInt64>(0)
  /// What of the counters is in the catalog; see `catalogWrite`.
  let recorded = Monitor(RecordedTotals())
  /// What the removal under way has hidden.
  let hiddenByWriter = Monitor<[RemovedRange]>([])
  /// Slot files whose rows a transaction under way has removed.
  private let filesToRemove = Monitor<[SlotFileID]>([])

  /// nil on a read-only store.
  var writer: Writer? { writerBox.withLock { $0 } }

  static let smallFilesByteCount = 4 << 20
  /// Address space that an open wants beside the arena: threads' stacks and heaps.
  private static let spareByteCount = 64 << 20

  // MARK: Opening

  /// What may lie in a folder in which a store is made: leftovers of an open that was killed, and a mount point's own.
  private static let ownNames: Set<String> = [
    "slots", "archive", "owners", "leases", "memory", "opening.lock", "repair.lock",
    "identities.kvs", "catalog.mdb-lock",
    "catalog.new",
    "catalog.new-lock", "lost+found",
  ]

  static func prepareFolder(_ configuration: StoreConfiguration) throws(StoreError) {
    guard !configuration.readOnly else { return }
    let storage = LinuxStorage()
    do throws(FileError) {
      try storage.makeDirectory(configuration.path)
      // A store is never laid over somebody's files.
      let names = Set(try storage.list(configuration.path))
      guard names.contains("catalog.mdb") || names.isSubset(of: ownNames) else {
        throw FileError(.list, errno: ENOTDIR)
      }
      try storage.makeDirectory(configuration.path + "/slots")
      try storage.makeDirectory(configuration.path + "/owners")
    } catch {
      if error.errno == ENOTDIR { throw .notAStore }
      throw StoreError(error, .createFolder)
    }
  }

  init(_ configuration: StoreConfiguration) throws(StoreError) {
    let storage: any Storage = configuration.storage
    let folder = configuration.path
    let opening = try Self.lockOpening(configuration)
    defer { withExtendedLifetime(opening) {} }
    ownerFiles = OwnerFiles(directory: folder + "/owners", storage: storage)
    try ownerFiles.checkPIDNamespace()

    var options = CatalogOptions(path: folder + "/catalog.mdb")
    options.isReadOnly = configuration.readOnly
    options.durability = configuration.catalogIsSynced ? .synced : .buffered
    let isNew = !storage.fileExists(options.path)
    guard !isNew || !configuration.readOnly else { throw .io(.openCatalog, errno: ENOENT) }
    if isNew {
      try Self.checkNothingIsLost(configuration)
      try Self.createCatalog(configuration)
    }
    let sharedMemory = try SharedMemory.enter(
      folder,
      isReadOnly: configuration.readOnly,
      configuration.clock
    )
    self.sharedMemory = sharedMemory
    let catalog = try sharedMemory.openCatalog(options)
    self.catalog = catalog
    do throws(CatalogError) {
      time = try catalog.read { (transaction) throws(CatalogError) in
        StoreTime(
          configuration.clock,
          lastCommitted: try transaction.lastCommittedNanoseconds(),
          idleSuspendedBefore: try transaction.idleSuspendedBefore(),
          anchor: try transaction.clockAnchor()
        )
      }
    } catch {
      throw StoreError(error, .openCatalog)
    }
    let meta = catalog.meta
    storeUUID = meta.storeUUID
    let mapByteCount: Int
    do throws(CatalogError) { mapByteCount = try catalog.mapByteCount() } catch {
      throw StoreError(error, .openCatalog)
    }
    slotBytesCapacity = max(
      0,
      configuration.capacityBytes - mapByteCount - Self.smallFilesByteCount
    )
    slotFileBytes = Int(clamping: meta.slotFileBytes)
    self.configuration = configuration
    admission = Monitor(
      Admission(configuration.admission, writeBytesPerDay: configuration.writeBytesPerDay)
    )
    density =
      configuration.evictionPolicy == .density && !configuration.readOnly
      ? DensityEviction(time: time) : nil
    archiveBytesCapacity =
      try ArchiveFolder.prepare(configuration, storeUUID: meta.storeUUID)
      ? configuration.archiveBytes : 0
    effectiveHostBytes = max(configuration.hostBytes, 1 << 20)

    if configuration.readOnly {
      owner = OwnerID(rawValue: 0)
    } else {
      do throws(CatalogError) {
        owner = try catalog.write(timeNanoseconds: time.now()) {
          [time] (transaction) throws(CatalogError) in
          try transaction.setClean(false)
          if let anchor = time.newAnchor { try transaction.anchorClock(anchor) }
          if time.hasJumped { try transaction.suspendIdleExpiry(before: time.idleSuspendedBefore) }
          return transaction.nextOwner()
        }
      } catch {
        throw StoreError(error)
      }
      try ownerFiles.claim(owner)
    }
    do throws(FileError) {
      diskTier = try DiskTier(
        directories: ArchiveFolder.directories(folder),
        storage: storage,
        direct: !configuration.bufferedIO,
        archiveLimitNanoseconds: configuration.archiveLimitNanoseconds
      )
      let arena = try HostArena(byteCount: effectiveHostBytes)
      // A small allocation that is refused ends a Swift program: where there is nothing to spare, the open is refused instead.
      _ = try MappedMemory.anonymous(byteCount: Self.spareByteCount)
      hostMemoryBase = arena.memory
      let leaseMemory = sharedMemory.memory
      let leases = LeaseTable(memory: leaseMemory, owner: owner, base: sharedMemory.leaseBase)
      unsafe self.leases = leases
      intents = EvictionIntents(memory: leaseMemory, start: LeaseTable.byteCount, owner: owner)
      processMemory = ProcessMemoryTable(memory: leaseMemory, owner: owner)
      state = Monitor(
        StoreState(index: PrefixIndex(), arena: arena, leases: leases, intents: intents)
      )
    } catch {
      throw StoreError(error, .openSlotFile)
    }
    processMemory.claim { [ownerFiles] in ownerFiles.isDead($0) }
    publishMemory()
    do throws(StoreError) {
      try startThreads()
    } catch {
      // One that runs goes on with what it has of this store: it ends first.
      shutDown()
      throw error
    }
  }

  private func startThreads() throws(StoreError) {
    let follower = try EventFollower(core: self)
    if !configuration.readOnly {
      let writer = Writer(core: self)
      try writer.start()
      writerBox.withLock { $0 = writer }
      // One row is read to know; what an earlier process left is overwritten when there is time.
      if erasePendingSlotCount > 0 { writer.enqueueErasing() }
    }
    try follower.start()
    followerBox.withLock { $0 = follower }
  }

  private final class OpeningLock {
    private let descriptor: FileDescriptor
    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
  }

  /// Held while a process opens the store, so that two do not create it at once.
  ///
  /// Gives up waiting after ten seconds.
  private static func lockOpening(
    _ configuration: StoreConfiguration
  ) throws(StoreError) -> OpeningLock? {
    guard !configuration.readOnly else { return nil }
    do throws(FileError) {
      let descriptor = try FileDescriptor.open(configuration.path + "/opening.lock", mode: .create)
      let deadline = monotonicNanoseconds() + 10_000_000_000
      while try !descriptor.tryRecordLock(), monotonicNanoseconds() < deadline { usleep(1000) }
      if RepairLocks.isRepaired(configuration.path) { throw FileError(.lock, errno: EBUSY) }
      return OpeningLock(descriptor)
    } catch {
      throw error.errno == EBUSY ? .locked(.repairing) : StoreError(error, .ownerLock)
    }
  }

  /// A store that lost its catalog is not an empty folder: a new one would overwrite slot files that a repair can read.
  private static func checkNothingIsLost(
    _ configuration: StoreConfiguration
  ) throws(StoreError) {
    let known: IdentityFile
    do throws(FileError) {
      known = try IdentityFile.read(
        configuration.path,
        storeUUID: nil,
        storage: configuration.storage
      )
    } catch {
      throw StoreError(error, .identities)
    }
    guard known.identities.isEmpty else { throw .corrupt(.catalogMissing) }
  }

  /// Makes the catalog under another name first: whenever this process dies, there is a whole catalog or none.
  private static func createCatalog(_ configuration: StoreConfiguration) throws(StoreError) {
    let storage = configuration.storage
    let path = configuration.path + "/catalog.new"
    do throws(FileError) {
      if storage.fileExists(path) { try storage.remove(path) }
    } catch {
      throw StoreError(error, .removeFile)
    }
    do throws(CatalogError) {
      var options = CatalogOptions(path: path)
      options.mapByteCount = configuration.effectiveCatalogBytes
      options.lock = .none
      try Catalog(options, create: try newMeta(configuration)).close()
    } catch {
      throw StoreError(error, .openCatalog)
    }
    do throws(FileError) {
      // The folder's own name, before anything in it counts.
      try syncParent(of: configuration.path, storage)
      try storage.rename(path, to: configuration.path + "/catalog.mdb")
      try storage.syncDirectory(configuration.path)
    } catch {
      throw StoreError(error, .createFolder)
    }
  }

  private static func syncParent(
    of path: String,
    _ storage: any Storage
  ) throws(FileError) {
    var parent = path[...]
    while parent.count > 1, parent.hasSuffix("/") { parent.removeLast() }
    parent = parent.lastIndex(of: "/").map { parent[..<$0] } ?? "."
    do throws(FileError) {
      try storage.syncDirectory(parent.isEmpty ? "/" : String(parent))
    } catch {
      // A parent that we may not read is not ours: whoever made the folder there answers for its name.
      guard error.errno == EACCES || error.errno == EPERM else { throw error }
    }
  }

  private static func newMeta(_ configuration: StoreConfiguration) throws(CatalogError) -> StoreMeta
  {
    do throws(FileError) {
      return StoreMeta(
        storeUUID: try randomBytes(count: 16),
        createdNanoseconds: configuration.clock.realTimeNanoseconds(),
        saltKey: try randomBytes(count: 32),
        capacityBytes: UInt64(configuration.capacityBytes),
        catalogBytes: UInt64(configuration.effectiveCatalogBytes),
        inlinePayloadBytesMax: UInt64(configuration.inlinePayloadBytesMax),
        slotFileBytes: UInt64(min(1 << 30, max(8 << 20, configuration.capacityBytes / 64)))
      )
    } catch {
      throw .io(errno: error.errno)
    }
  }

  // MARK: Closing

  func shutDown() {
    followerBox.withLock { $0 }?.stop()
    followerBox.withLock { $0 = nil }
    prefetchCancellation.cancel()
    prefetchQueue.stop()
    restoreQueue.stop()
    offloadQueue.stop()
    if let writer {
      writer.stop()
      do throws(StoreError) { try writer.batches.releaseReservations() } catch
      { /* freed as a dead owner's */  }
      do throws(CatalogError) {
        try catalogWrite { (transaction) throws(CatalogError) in try transaction.setClean(true) }
      } catch { /* the mark stays unset, which is true */  }
      writerBox.withLock { $0 = nil }
    }
    state.withLock { state in
      state.leases.releaseOwn()
      state.arena.close()
    }
    processMemory.release()
    diskTier.close()
    catalog.close()
    ownerFiles.release()
    sharedMemory.leave()
  }

  // MARK: State of health

  var isForked: Bool { ForkGeneration.current != forkGeneration }

  var isPoisoned: Bool { poisoned.value }

  /// A failed invariant: asserts in debug builds; in release the store answers misses from now on.
  func poison(_ reason: StaticString) {
    assertionFailure("\(reason)")
    poisoned.exchange(true)
  }

  func poisonIfInternal(_ error: StoreError) {
    if error == .poisoned { poison("the catalog refused an argument of ours") }
  }

  func checkWritable() throws(StoreError) {
    if isPoisoned { throw .poisoned }
  }

  // MARK: Small services

  func catalogRead<Result>(
    _ body: (ReadTransaction) throws(CatalogError) -> Result
  ) throws(StoreError) -> Result {
    do throws(CatalogError) {
      return try catalog.read(body)
    } catch {
      throw StoreError(error)
    }
  }

  /// On the writer's thread, or before it runs and after it has ended.
  func catalogWrite<Result>(
    _ body: (WriteTransaction) throws(CatalogError) -> Result
  ) throws(CatalogError) -> Result {
    density?.victims.begin()
    let record = totalsRecord()
    do throws(CatalogError) {
      let (result, useCounter) = try catalog.write(timeNanoseconds: time.now(), owner: owner) {
        (transaction) throws(CatalogError) in
        time.advance(to: try transaction.lastCommittedNanoseconds())
        transaction.victimOrder = density?.victims
        let begin = transaction.useCounter
        let result = try body(transaction)
        try record.put(in: transaction)
        try note(numbersOf: transaction)
        return (result, (begin: begin, end: transaction.useCounter))
      }
      density?.victims.committed(from: useCounter.begin, to: useCounter.end)
      committed(record)
      return result
    } catch {
      density?.victims.takeBack()
      throw error
    }
  }

  /// How full the catalog is; when it cannot be read, as full as it can be.
  var catalogUsage: CatalogUsage? { try? catalog.usage() }

  var transactionID: UInt64 { (try? catalog.transactionID()) ?? 0 }

  func catalogBlockCount() -> Int {
    let rows = try? catalogRead { (transaction) throws(CatalogError) in
      var count: UInt64 = 0
      for namespace in try transaction.namespaces() {
        count += try transaction.accounting(namespace.id).blockCount
      }
      return Int(clamping: count)
    }
    return rows ?? 0
  }

  /// Until when a call waits for the writer, which another process that holds the catalog's write lock may keep waiting.
  var writerDeadline: UInt64 { deadline(after: configuration.waitTimeoutNanoseconds) }

  func countCommit() { commitCount.withLock { $0 += 1 } }

  var commits: UInt64 { commitCount.withLock { $0 } }

  /// Waits until everything that was offloaded is settled, and tells what became of one handle's blocks.
  func flush(_ ledger: FlushLedger, timeoutNanoseconds: UInt64) throws(StoreError) -> FlushResult {
    guard let writer else { throw .readOnly }
    if isPoisoned { throw .poisoned }
    let deadline = timeoutNanoseconds == 0 ? nil : KVCore.deadline(after: timeoutNanoseconds)
    try writer.flush(deadline: deadline)
    return ledger.take()
  }

  /// Where a pinned host slot's bytes are.
  func hostMemory(of slot: HostSlot, _ namespace: NamespaceCore) -> UnsafeMutableRawPointer {
    unsafe hostMemoryBase.pointer(to: slot)
  }

  /// Header without its padding, then the payload: what table `payloads` holds.
  ///
  /// The caller frees it.
  func packInline(
    _ memory: UnsafeMutableRawPointer,
    _ header: SlotHeaderView,
    _ payloadByteCount: Int,
    _ namespace: NamespaceCore
  ) -> UnsafeRawBufferPointer {
    let used = Int(header.usedByteCount)
    let packed = UnsafeMutableRawBufferPointer.allocate(
      byteCount: used + payloadByteCount,
      alignment: 8
    )
    if let base = packed.baseAddress {
      unsafe base.copyMemory(from: memory, byteCount: used)
      unsafe base.advanced(by: used).copyMemory(
        from: memory.advanced(by: namespace.layout.headerByteCount),
        byteCount: payloadByteCount
      )
    }
    return UnsafeRawBufferPointer(packed)
  }

  /// Slot files that the transaction under way gives up.
  var filesAboutToGo: Set<SlotFileID> { filesToRemove.withLock { Set($0) } }

  func removeFileAfterCommit(_ file: SlotFileID) { filesToRemove.withLock { $0.append(file) } }

  // MARK: Removal

  /// The index has every removal up to this commit; nil while nobody follows.
  var followedSnapshotID: UInt64? { followerBox.withLock { $0 }?.snapshotID }

  /// An evictor that died with its victims announced hides them no longer.
  func forgetDeadEvictor() {
    guard let evictor = intents.foreignEvictor, ownerFiles.isDead(evictor) else { return }
    intents.forget(deadEvictor: evictor)
  }

  /// Frees the leases of processes that have ended; returns how many there were.
  func releaseDeadLeases() -> Int {
    let dead = deadLeaseOwners()
    return dead.isEmpty ? 0 : state.withLock { $0.leases.release(deadOwners: dead) }
  }

  /// Owners of leases whose process has ended.
  func deadLeaseOwners() -> Set<OwnerID> {
    unsafe leases.foreignOwners().filter { ownerFiles.isDead($0) }
  }

  /// Takes what a transaction is about to remove out of the index and hides it; false when some of it is needed by now.
  ///
  /// Needed is what is leased, and what a block on its way hangs from (`WriterBatches.parentPositions`).
  func hideUnlessNeeded(
    _ removed: [RemovedSummary],
    parents: () -> [RunID: UInt32]
  ) -> Bool {
    let ranges = removed.flatMap(\.ranges)
    guard !ranges.isEmpty else { return true }
    let now = configuration.clock.bootTimeNanoseconds()
    // Before the look: a lease of another process that this look misses sees the announcement.
    intents.announce(ranges)
    let dead = deadLeaseOwners()
    let expired = Dictionary(grouping: removed.flatMap(\.expiredTops), by: \.at.run)
    return hide(ranges) { ranges, state in
      let needed = unsafe leases.deepestPositions(now: now, deadOwners: dead)
        .merging(parents()) { max($0, $1) }
      return ranges.allSatisfy { range in
        if let needed = needed[range.run], needed >= range.firstPosition { return false }
        // A use that is still in the writer's queue has prolonged its life.
        return !(expired[range.run] ?? []).contains { isAlive($0, state) }
      }
    }
  }

  func removalEnded(_ removed: [RemovedSummary], committed: Bool) {
    intents.withdraw()
    showHidden()
    if committed {
      let expiredCount = removed.reduce(0) { $0 + $1.expiredBlockCount }
      let count = removed.reduce(0) { $0 + $1.blockCount }
      state.withLock { state in
        state.statistics.blocksExpired += UInt64(expiredCount)
        state.statistics.blocksEvicted += UInt64(count - expiredCount)
      }
    }
    let files = filesToRemove.withLock { files in
      defer { files = [] }
      return files
    }
    guard committed else { return }
    countCommit()
    let evicted = removed.filter { $0.blockCount > $0.expiredBlockCount }.flatMap(\.ranges)
    if !evicted.isEmpty {
      for ledger in ledgers.withLock({ $0.all }) { ledger.noteEviction(evicted) }
    }
    for file in files { diskTier.removeFile(file) }
  }
}
