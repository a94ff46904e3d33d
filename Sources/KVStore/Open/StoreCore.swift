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
  /// nil without a remote tier.
  let remoteReport: RemoteReportFile?
  package let time: StoreTime
  let owner: OwnerID
  package let ownerFiles: OwnerFiles
  package let storeUUID: [UInt8]
  let identities: IdentityLog
  /// nil where other processes could not see what is held.
  let namespaceHolds: NamespaceHolds?
  let namespaceSweeper: NamespaceSweeper
  let health = Health()
  let writerQueue = Monitor(WriterQueue())
  let pendingParents: PendingParents
  let archiveUses = ArchiveUses()
  /// nil where none is configured, or the store is read-only.
  let remote: RemoteTier?
  let catalogWriter: CatalogWriter
  let slotBounds: SlotBounds
  package let coders = SlotCoders()
  let admission: Monitor<Admission>
  /// nil = the least recently used leave first.
  let density: DensityEviction?
  package let archiveFiles: ArchiveFiles
  let effectiveHostBytes: Int
  /// Restores that were started run two at a time: one copies while the other waits for its reads.
  let restoreQueue = ServicePool(threadCount: 2, jobCountMax: 1024)
  /// Those of them that others may join; a leaf lock.
  let restoreSequences = Monitor<[RestoreSequence]>([])
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
  private let forkGeneration = ForkGeneration.noted()

  /// nil on a read-only store.
  var writer: Writer? { writerBox.withLock { $0 } }

  /// Of a capacity, what is for everything but the catalog and the slot files.
  package static func smallFilesByteCount(_ capacityBytes: Int) -> Int {
    max(4 << 20, capacityBytes / 256)
  }

  /// How long `identities.kvs` may be: while it is replaced there are two of them.
  private static func identityByteCountMax(_ capacityBytes: Int) -> Int {
    smallFilesByteCount(capacityBytes) / 8 * 3
  }

  /// Address space that an open wants beside the arena: threads' stacks and heaps.
  private static let spareByteCount = 64 << 20

  // MARK: Opening

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
    let opening = try OpeningLock.take(folder, configuration)
    defer { withExtendedLifetime(opening) {} }
    let folders = try Folders(folder)
    ownerFiles = OwnerFiles(folders.owners)
    let otherCount = try ownerFiles.checkOthers()

    let isNew: Bool
    do throws(FileError) { isNew = try !folder.files.fileExists(StoreFolder.catalogName) } catch {
      throw StoreError(error, .folder)
    }
    guard !isNew || !configuration.readOnly else { throw .io(.openCatalog, errno: ENOENT) }
    if isNew {
      try NewStore.checkNothingIsLost(folder)
      try NewStore.createCatalog(configuration, folder)
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
    identities = IdentityLog(
      folder.files,
      meta,
      byteCountMax: Self.identityByteCountMax(configuration.capacityBytes)
    )
    let mapByteCount: Int
    do throws(CatalogError) { mapByteCount = try catalog.mapByteCount() } catch {
      throw StoreError(error, .openCatalog)
    }
    self.configuration = configuration
    admission = Monitor(
      Admission(configuration.admission, writeBytesPerDay: configuration.writeBytesPerDay)
    )
    density =
      configuration.evictionPolicy == .density && !configuration.readOnly
      ? DensityEviction(time: time) : nil
    let knownFiles: Set<SlotFileID>
    do throws(CatalogError) {
      knownFiles = try catalog.read { (transaction) throws(CatalogError) in
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
      known: knownFiles
    )
    archiveFiles = ArchiveFiles(catalog)
    let archiveBytes = archive.isWritable ? configuration.archiveBytes : 0
    slotBounds = SlotBounds(
      disk: max(
        0,
        configuration.capacityBytes - mapByteCount
          - Self.smallFilesByteCount(configuration.capacityBytes)
      ),
      diskFile: Int(clamping: meta.slotFileBytes),
      archive: archiveBytes,
      archiveFile: configuration.archiveFileBytes ?? min(1 << 30, max(4 << 20, archiveBytes / 256))
    )
    effectiveHostBytes = max(configuration.hostBytes, 1 << 20)

    if configuration.readOnly {
      owner = OwnerID(rawValue: 0)
    } else {
      do throws(CatalogError) {
        owner = try catalog.write(timeNanoseconds: time.now()) {
          [time] (transaction) throws(CatalogError) in
          // Looked for under the opening lock: none came since, and one that closed has counted itself off.
          try transaction.noteOpened(beside: otherCount)
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
        StoreState(arena, leases, intents)
      )
    } catch {
      throw StoreError(error, .openSlotFile)
    }
    remote =
      configuration.readOnly
      ? nil
      : try RemoteTier.open(
        configuration.remote,
        folder.files,
        owner: owner,
        isDead: ownerFiles.isDead
      )
    remoteReport =
      remote == nil
      ? nil
      : RemoteReportFile(in: sharedMemory.reportsFolder, owner) { [ownerFiles] in
        ownerFiles.isDead($0)
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
      parents: pendingParents,
      remote: remote
    )
    do throws(FileError) {
      namespaceHolds = try NamespaceHolds.open(folder, isReadOnly: configuration.readOnly)
    } catch {
      throw StoreError(error, .openCatalog)
    }
    namespaceSweeper = NamespaceSweeper(
      catalog,
      time,
      catalogWriter,
      identities,
      namespaceHolds
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

  // MARK: Closing

  func shutDown() {
    followerBox.withLock { $0 }?.stop()
    followerBox.withLock { $0 = nil }
    prefetchCancellation.cancel()
    remote?.stop(self)
    prefetchQueue.stop()
    restoreQueue.stop()
    offloadQueue.stop()
    if let writer {
      writer.stop()
      do throws(StoreError) { try writer.batches.releaseReservations() } catch
      { /* freed as a dead owner's */  }
      do throws(StoreError) {
        try catalogWriter.commit { (transaction) throws(CatalogError) in
          try transaction.noteClosed()
        }
      } catch { /* it stays counted as open, which is true */  }
      writerBox.withLock { $0 = nil }
    }
    state.withLock { state in
      state.leases.releaseOwn()
      state.host.close()
    }
    namespaceHolds?.close()
    processMemory.release()
    remoteReport?.remove()
    diskTier.close()
    catalog.close()
    ownerFiles.release()
    sharedMemory.leave()
  }

  // MARK: State of health

  var isForked: Bool { ForkGeneration.current != forkGeneration }

  func checkWritable() throws(StoreError) {
    if health.isPoisoned { throw .poisoned }
    try folderWatch.checkIfGone()
  }

  // MARK: Small services

  package func catalogRead<Result>(
    _ body: (ReadTransaction) throws(CatalogError) -> Result
  ) throws(StoreError) -> Result {
    try catalog.lookUp(body)
  }

  /// How full the catalog is; when it cannot be read, as full as it can be.
  var catalogUsage: CatalogUsage? { try? catalog.usage() }

  package var transactionID: UInt64 { (try? catalog.transactionID()) ?? 0 }

  /// Until when a call waits for the writer, which another process that holds the catalog's write lock may keep waiting.
  var writerDeadline: UInt64 { deadline(after: configuration.waitTimeoutNanoseconds) }

  /// Waits until everything that was offloaded is settled, and tells what became of one handle's blocks.
  func flush(_ ledger: FlushLedger, timeoutNanoseconds: UInt64) throws(StoreError) -> FlushResult {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
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
  func hostMemory(of slot: HostSlot) -> UnsafeMutableRawPointer {
    unsafe hostMemoryBase.pointer(to: slot)
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
