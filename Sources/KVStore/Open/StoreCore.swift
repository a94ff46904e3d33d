internal import Glibc
package import KVCatalog
internal import KVCodec
package import KVCore
internal import KVFile
internal import KVIndex
internal import KVPolicy
package import KVTiers

/// One open store of this process: what all handles on a folder share.
///
/// Locks and threads: docs/internals/concurrency.md.
package final class StoreCore: Sendable {
  package let configuration: StoreConfiguration
  package let folder: StoreFolder
  package let archive: ArchiveFolder
  let folderWatch: FolderWatch
  /// Left once the catalog is closed: LMDB has its lock file there.
  package let sharedMemory: SharedMemory
  package let catalog: Catalog
  package let diskTier: DiskTier
  let hostMemoryBase: HostMemory
  let state: Monitor<StoreState>
  /// Shared memory; what this process adds to it is guarded by the state lock.
  nonisolated(unsafe) let leases: LeaseTable
  let activeLeases: ActiveLeases
  /// Shared memory, behind the leases.
  let intents: EvictionIntents
  /// Shared memory, behind that.
  let processMemory: ProcessMemoryTable
  package let time: StoreTime
  let owner: OwnerID
  package let ownerFiles: OwnerFiles
  package let storeUUID: [UInt8]
  let identities: IdentityLog
  let writerQueue = Monitor(WriterQueue())
  let pendingParents: PendingParents
  let catalogWriter: CatalogWriter
  /// Bytes that slot files may take: the bound less the catalog's map and room for the small files.
  let slotBytesCapacity: Int
  let slotFileBytes: Int
  /// Bytes that the archive's slot files may take; 0 = nothing is moved there.
  let archiveBytesCapacity: Int
  package let coders = SlotCoders()
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

  /// nil on a read-only store.
  var writer: Writer? { writerBox.withLock { $0 } }

  package static let smallFilesByteCount = 4 << 20
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

  /// Opens the folder, and makes it first when there is none.
  static func prepareFolder(_ configuration: StoreConfiguration) throws(StoreError) -> StoreFolder {
    do throws(FileError) {
      guard !configuration.readOnly else { return try StoreFolder(configuration) }
      try LinuxStorage().makeDirectory(configuration.path)
      let folder = try StoreFolder(configuration)
      // A store is never laid over somebody's files.
      let names = Set(try folder.files.list("."))
      guard names.contains(StoreFolder.catalogName) || names.isSubset(of: ownNames) else {
        throw FileError(.list, errno: ENOTDIR)
      }
      try folder.files.makeDirectory("slots")
      try folder.files.makeDirectory("owners")
      return folder
    } catch {
      if error.errno == ENOTDIR { throw .notAStore }
      throw StoreError(error, .createFolder)
    }
  }

  private struct Folders {
    let slots: (any Storage)?
    let owners: (any Storage)?

    init(_ folder: StoreFolder) throws(StoreError) {
      do throws(FileError) {
        slots = try folder.subfolder("slots")
        owners = try folder.subfolder("owners")
      } catch {
        throw StoreError(error, .folder)
      }
    }
  }

  init(_ configuration: StoreConfiguration, _ folder: StoreFolder) throws(StoreError) {
    self.folder = folder
    let opening = try Self.lockOpening(configuration, folder)
    defer { withExtendedLifetime(opening) {} }
    let folders = try Folders(folder)
    ownerFiles = OwnerFiles(folders.owners)
    try ownerFiles.checkPIDNamespace()

    let isNew = !folder.files.fileExists(StoreFolder.catalogName)
    guard !isNew || !configuration.readOnly else { throw .io(.openCatalog, errno: ENOENT) }
    if isNew {
      try Self.checkNothingIsLost(folder)
      try Self.createCatalog(configuration, folder)
    }
    var options: CatalogOptions
    do throws(FileError) {
      options = try folder.catalogOptions(isReadOnly: configuration.readOnly)
    } catch {
      throw StoreError(error, .openCatalog)
    }
    options.durability = configuration.catalogIsSynced ? .synced : .buffered
    folderWatch = FolderWatch(folder, catalog: options.identity)
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
    identities = IdentityLog(folder.files, meta)
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
    let archiveFiles: Set<SlotFileID>
    do throws(CatalogError) {
      archiveFiles = try catalog.read { (transaction) throws(CatalogError) in
        Set(
          try transaction.slotFiles().filter { $0.tier == .archive }
            .map { SlotFileID(tier: .archive, file: $0.file) }
        )
      }
    } catch {
      throw StoreError(error, .openCatalog)
    }
    archive = try ArchiveFolder.open(
      folder,
      configuration,
      storeUUID: meta.storeUUID,
      known: archiveFiles
    )
    archiveBytesCapacity = archive.isWritable ? configuration.archiveBytes : 0
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
        folders: [.disk: folders.slots, .archive: archive.files].compactMapValues { $0 },
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
      activeLeases = ActiveLeases(leases, ownerFiles, configuration.clock)
      intents = EvictionIntents(memory: leaseMemory, start: LeaseTable.byteCount, owner: owner)
      processMemory = ProcessMemoryTable(memory: leaseMemory, owner: owner)
      state = Monitor(
        StoreState(index: PrefixIndex(), arena: arena, leases: leases, intents: intents)
      )
    } catch {
      throw StoreError(error, .openSlotFile)
    }
    pendingParents = PendingParents(writerQueue)
    catalogWriter = CatalogWriter(
      catalog,
      time,
      owner: owner,
      folder: folderWatch,
      identities: identities,
      victims: density?.victims,
      state: state,
      leases: activeLeases,
      intents: intents,
      diskTier: diskTier,
      ledgers: ledgers,
      parents: pendingParents
    )
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
  /// Without it nobody goes on: one that was stopped halfway may go on at any time. Gives up waiting after ten seconds, or three
  /// quarters of what the caller allows, who shall hear what it was.
  private static func lockOpening(
    _ configuration: StoreConfiguration,
    _ folder: StoreFolder
  ) throws(StoreError) -> OpeningLock? {
    guard !configuration.readOnly else { return nil }
    let patience = min(10_000_000_000, configuration.waitTimeoutNanoseconds / 4 * 3)
    let deadline = KVCore.deadline(after: patience)
    do throws(FileError) {
      while true {
        let descriptor = try FileDescriptor.open("opening.lock", in: folder.handle, mode: .create)
        while try !descriptor.tryRecordLock() {
          guard monotonicNanoseconds() < deadline else { throw FileError(.lock, errno: EAGAIN) }
          usleep(1000)
        }
        if RepairLocks.isRepaired(folder) { throw FileError(.lock, errno: EBUSY) }
        // Somebody may have removed it meanwhile, and another process have locked a new one.
        if try descriptor.identity() == folder.handle.identity(of: "opening.lock") {
          return OpeningLock(descriptor)
        }
      }
    } catch {
      switch error.errno {
      case EAGAIN: throw .locked(.opening)
      case EBUSY: throw .locked(.repairing)
      default: throw StoreError(error, .ownerLock)
      }
    }
  }

  /// A store that lost its catalog is not an empty folder: a new one would overwrite slot files that a repair can read.
  private static func checkNothingIsLost(_ folder: StoreFolder) throws(StoreError) {
    let known: IdentityFile
    do throws(FileError) {
      known = try IdentityFile.read(folder.files, storeUUID: nil)
    } catch {
      throw StoreError(error, .identities)
    }
    guard known.identities.isEmpty else { throw .corrupt(.catalogMissing) }
  }

  /// Makes the catalog under another name first: whenever this process dies, there is a whole catalog or none.
  private static func createCatalog(
    _ configuration: StoreConfiguration,
    _ folder: StoreFolder
  ) throws(StoreError) {
    let files = folder.files
    let name = "catalog.new"
    var options: CatalogOptions
    do throws(FileError) {
      for leftover in [name, name + "-lock"] where files.fileExists(leftover) {
        try files.remove(leftover)
      }
      options = try folder.catalogOptions(name, creates: true)
    } catch {
      throw StoreError(error, .openCatalog)
    }
    do throws(CatalogError) {
      options.mapByteCount = configuration.effectiveCatalogBytes
      options.lock = .none
      try Catalog(options, create: try newMeta(configuration)).close()
    } catch {
      throw StoreError(error, .openCatalog)
    }
    do throws(FileError) {
      // The folder's own name, before anything in it counts.
      try syncParent(of: folder)
      try files.rename(name, to: StoreFolder.catalogName)
      try files.syncDirectory(".")
    } catch {
      throw StoreError(error, .createFolder)
    }
  }

  private static func syncParent(of folder: StoreFolder) throws(FileError) {
    do throws(FileError) {
      try folder.files.syncDirectory("..")
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
      do throws(StoreError) {
        try catalogWriter.commit { (transaction) throws(CatalogError) in
          try transaction.setClean(true)
        }
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
    try folderWatch.checkIfGone()
  }

  // MARK: Small services

  package func catalogRead<Result>(
    _ body: (ReadTransaction) throws(CatalogError) -> Result
  ) throws(StoreError) -> Result {
    do throws(CatalogError) {
      return try catalog.read(body)
    } catch {
      throw StoreError(error)
    }
  }

  /// How full the catalog is; when it cannot be read, as full as it can be.
  var catalogUsage: CatalogUsage? { try? catalog.usage() }

  package var transactionID: UInt64 { (try? catalog.transactionID()) ?? 0 }

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

  /// Waits until everything that was offloaded is settled, and tells what became of one handle's blocks.
  func flush(_ ledger: FlushLedger, timeoutNanoseconds: UInt64) throws(StoreError) -> FlushResult {
    guard let writer else { throw .readOnly }
    if isPoisoned { throw .poisoned }
    let deadline = timeoutNanoseconds == 0 ? nil : KVCore.deadline(after: timeoutNanoseconds)
    try writer.flush(deadline: deadline)
    var result = ledger.take()
    do throws(StoreError) { try folderWatch.check() } catch {
      // Synced, and in files that nobody finds.
      result.droppedErrorBlockCount += result.durableBlockCount
      result.durableBlockCount = 0
      result.error = error
    }
    return result
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
    let dead = activeLeases.deadOwners()
    return dead.isEmpty ? 0 : state.withLock { $0.leases.release(deadOwners: dead) }
  }
}
