internal import Glibc
package import KVCatalog
package import KVCore
internal import KVFile

/// Where the processes that have a store open meet in memory: LMDB's lock file, and the table of leases.
///
/// Both lie in a folder of tmpfs, where a touch neither fails because a disk is full nor waits because one is frozen
/// (docs/decisions/0010-shared-memory.md):
///
/// ```
/// /dev/shm/kvstore-UID/DEVICE-INODE/   of catalog.mdb, and its owner
///   shared      leases, announcements, what processes hold in memory; locked (flock) by each process that is here
///   lock        LMDB's
///   remote-…    what a process says of its remote tier; of those that have one only
/// ```
///
/// Nothing there outlives the processes: who comes first begins anew, who leaves last removes it, and what killed ones left goes when
/// another store is opened for writing. Where there is no tmpfs, the folder lies in the store's own, with the risks of its file system.
///
/// That all see one place is checked by a byte of `owners/place` in the store's folder, which each process shares a record lock on: the byte's offset is
/// made from the PID namespace and the file `shared`. Who finds another byte locked is in another container, and refused.
package final class SharedMemory: Sendable {
  /// The words behind the tables: format, and what lease ids begin from.
  private enum Word: Int { case format, leaseBase }

  private static let format: UInt64 = 0x314D_5353_564B
  private static let headerStart =
    LeaseTable.byteCount + EvictionIntents.byteCount + ProcessMemoryTable.byteCount
  private static let byteCount = headerStart + 64
  private static let leftOverCountMax = 64
  private static let waitNanoseconds: UInt64 = 10_000_000_000

  private let entry: Entry
  /// nil: nobody can write to the store, and nobody does.
  private let folder: String?
  private let own: Monitor<Own?>
  /// What leases, announcements and processes' figures lie in; nil for who only reads.
  let memory: MappedMemory?

  private final class HeldFile: Sendable {
    let descriptor: FileDescriptor
    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
  }

  private struct Own {
    /// nil: in no folder.
    let shared: HeldFile?
    let place: HeldFile?
  }

  /// The tables, for who reads them as a file.
  package var tablesPath: String? { folder.map { $0 + "/shared" } }

  /// Where a process with a remote tier keeps its report (`RemoteReportFile`).
  package var reportsFolder: String? { folder }

  /// What the numbers of this life's leases are above.
  var leaseBase: UInt64 { memory?.atomicLoad(at: Self.headerStart + 8) ?? 0 }

  private init(_ entry: Entry, folder: String?, own: Own?, memory: MappedMemory?) {
    self.entry = entry
    self.folder = folder
    self.own = Monitor(own)
    self.memory = memory
  }

  deinit { leave() }

  // MARK: Coming

  /// Enters the place where the processes of this store meet.
  ///
  /// Who only reads takes no leases, and writes nothing into the store's folder where it need not. Throws
  /// `.locked(.otherSharedMemory)` when a process is elsewhere.
  package static func enter(
    _ store: StoreFolder,
    isReadOnly: Bool,
    _ clock: any StoreClock
  ) throws(StoreError) -> SharedMemory {
    let storeFolder = store.stablePath
    let catalog: FileStatus
    do throws(FileError) { catalog = try FileStatus(ofPath: storeFolder + "/catalog.mdb") } catch {
      throw StoreError(error, .openCatalog)
    }
    let entry = Entry(
      store: store,
      storeFolder: storeFolder,
      catalog: catalog,
      isReadOnly: isReadOnly,
      leaseBase: leaseBase(clock)
    )
    if !isReadOnly { try checkLockBeside(entry) }
    // Two that come at once may see each other where neither stays.
    for attempt in 0..<50 {
      if attempt > 0 { usleep(2000) }
      var failure: FileError?
      var isElsewhere = false
      for base in [entry.memoryFolder, storeFolder + "/memory"] {
        do throws(FileError) {
          if let memory = try entry.enter(base) {
            memory.linkLock()
            return memory
          }
          isElsewhere = true
        } catch {
          // What this process is refused here says nothing of where the others are.
          if [EMFILE, ENFILE, ENOMEM, ENOLCK].contains(error.errno) {
            throw StoreError(error, .leaseTable)
          }
          failure = error
        }
      }
      guard isElsewhere else {
        // Nobody can write to a file system that is read-only here; who can, on another mount, is seen by the owners' files.
        if isReadOnly, isOnReadOnlyFileSystem(storeFolder) {
          guard OwnerFiles.livingCount(store) == 0, let unlocked = try entry.readUnlocked() else {
            throw .locked(.otherSharedMemory)
          }
          return unlocked
        }
        // Somebody is stopped in the middle of coming or going.
        if failure?.errno == EAGAIN { throw .locked(.writerStalled) }
        throw StoreError(failure ?? FileError(.open, errno: EIO), .leaseTable)
      }
    }
    throw .locked(.otherSharedMemory)
  }

  private static func isOnReadOnlyFileSystem(_ path: String) -> Bool {
    var information = statvfs()
    return unsafe statvfs(path, &information) == 0 && information.f_flag & UInt(ST_RDONLY) != 0
  }

  /// 2^16 leases of an entry in a second before the ids of two such folders could meet.
  private static func leaseBase(_ clock: any StoreClock) -> UInt64 {
    let since2025 = clock.realTimeNanoseconds() / 1_000_000_000 &- 1_735_689_600
    return (since2025 & 0x3FFF_FFFF) << 16
  }

  /// How the catalog is opened from here.
  package var catalogLock: CatalogOptions.Lock { folder.map { .file($0 + "/lock") } ?? .none }

  /// Opens the catalog that this is the place of.
  package func openCatalog(_ options: CatalogOptions) throws(StoreError) -> Catalog {
    var options = options
    options.lock = catalogLock
    do throws(CatalogError) {
      let catalog = try Catalog(options)
      let opened = try catalog.fileIdentity()
      guard opened == (entry.catalog.device, entry.catalog.inode) else {
        catalog.close()
        throw .io(errno: ESTALE)
      }
      return catalog
    } catch {
      throw StoreError(error, .openCatalog)
    }
  }

  private static func placePath(_ storeFolder: String) -> String { storeFolder + "/owners/place" }

  /// Whether another process has the store open, if only to read it; those before this was so are not seen.
  static func isUsedByOthers(_ store: StoreFolder) -> Bool {
    do throws(FileError) {
      let path = placePath(store.stablePath)
      let place = try FileDescriptor.openExistingNoFollow(path, toWrite: false)
      return try place.isOtherByteShared(than: 0)
    } catch {
      return false
    }
  }

  // MARK: Others' lock file

  /// LMDB's lock file beside the catalog is that of others: an older library, or LMDB's own tools.
  ///
  /// Throws while one of them has the catalog open: it would read what we write anew. Who only reads is in nobody's way.
  private static func checkLockBeside(_ entry: Entry) throws(StoreError) {
    // What an older library had in place of our memory.
    defer { _ = unsafe unlink(entry.storeFolder + "/leases") }
    do throws(FileError) {
      guard try FileStatus(ofPath: entry.lockBeside).isFile else { return }
      let file = try FileDescriptor.openExistingNoFollow(entry.lockBeside)
      guard try file.tryDescriptionLock() else { throw FileError(.lock, errno: EAGAIN) }
      unsafe unlink(entry.lockBeside)
    } catch {
      if error.errno == EAGAIN { throw .locked(.otherSharedMemory) }
      // None, a link of ours, or one that we may not touch, as nobody else may then.
    }
  }

  /// Leads LMDB's own tools to our lock file for as long as the store is open; without, they had better not be used.
  private func linkLock() {
    guard let folder, !entry.isReadOnly, !isLockLinked(folder) else { return }
    unsafe unlink(entry.lockBeside)
    _ = unsafe symlink(lockTarget(folder), entry.lockBeside)
  }

  /// Who leaves last takes the link along, also one that a killed writer left: it would lead nowhere.
  private func unlinkLock(_ folder: String) {
    if isLockLinked(folder) { unsafe unlink(entry.lockBeside) }
  }

  private func isLockLinked(_ folder: String) -> Bool {
    var buffer = [CChar](repeating: 0, count: 512)
    let count = unsafe readlink(entry.lockBeside, &buffer, 512)
    guard count > 0 else { return false }
    let target = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return target == lockTarget(folder)
  }

  /// Within the store's folder from there: the path that we have to it is our own.
  private func lockTarget(_ folder: String) -> String {
    let prefix = entry.storeFolder + "/"
    return (folder.hasPrefix(prefix) ? String(folder.dropFirst(prefix.count)) : folder) + "/lock"
  }

  /// One who comes.
  private struct Entry {
    /// Keeps the folder open that the path goes through.
    let store: StoreFolder
    let storeFolder: String
    let catalog: FileStatus
    let isReadOnly: Bool
    let leaseBase: UInt64

    var owner: UInt32 { catalog.owner }
    var name: String {
      hexadecimalText(catalog.device, digitCount: 16) + "-"
        + hexadecimalText(catalog.inode, digitCount: 16)
    }
    var lockBeside: String { storeFolder + "/catalog.mdb-lock" }
    var memoryFolder: String { "/dev/shm/kvstore-\(owner)" }

    /// nil when others are elsewhere.
    func enter(_ base: String) throws(FileError) -> SharedMemory? {
      let isInMemory = base == memoryFolder
      if isInMemory { try checkIsInMemory() }
      let folder = base + "/" + name
      let shared = HeldFile(try enter(base, folder, isInMemory: isInMemory))
      do throws(FileError) {
        let identity = try shared.descriptor.identity()
        let place = try openPlace()
        let byte = Self.byte(identity.device, identity.inode)
        if let place {
          try place.descriptor.shareByte(at: byte)
          if try place.descriptor.isOtherByteShared(than: byte, onlyHere: true) {
            SharedMemory.leave(folder, shared.descriptor)
            return nil
          }
        }
        let memory =
          isReadOnly
          ? nil : try MappedMemory.shared(shared.descriptor, byteCount: byteCount)
        let own = Own(shared: shared, place: place)
        return SharedMemory(self, folder: folder, own: own, memory: memory)
      } catch {
        SharedMemory.leave(folder, shared.descriptor)
        throw error
      }
    }

    /// A reader that has nowhere to tell LMDB's writers of itself: it shares a byte with its like only, so that they are refused while
    /// it is here.
    ///
    /// nil when others are here.
    func readUnlocked() throws(StoreError) -> SharedMemory? {
      do throws(FileError) {
        guard let place = try openPlace() else {
          return SharedMemory(self, folder: nil, own: nil, memory: nil)
        }
        let byte = Self.unlockedByte
        try place.descriptor.shareByte(at: byte)
        if try place.descriptor.isOtherByteShared(than: byte) { return nil }
        let own = Own(shared: nil, place: place)
        return SharedMemory(self, folder: nil, own: own, memory: nil)
      } catch {
        throw StoreError(error, .leaseTable)
      }
    }

    private func checkIsInMemory() throws(FileError) {
      guard FileDescriptor.isInMemory("/dev/shm") else {
        throw FileError(.map, .directory, errno: ENODEV)
      }
    }

    /// The file `shared`, locked and whole.
    private func enter(
      _ base: String,
      _ folder: String,
      isInMemory: Bool
    ) throws(FileError) -> FileDescriptor {
      let path = folder + "/shared"
      let deadline = deadline(after: SharedMemory.waitNanoseconds)
      while true {
        for part in [base, folder] { try makeFolder(part, isOwned: isInMemory) }
        let shared: FileDescriptor
        do throws(FileError) {
          shared = try FileDescriptor.openNoFollow(path, ownedBy: isInMemory ? owner : nil)
        } catch {
          // Who left last has removed the folder meanwhile.
          guard error.isNotFound, monotonicNanoseconds() < deadline else { throw error }
          continue
        }
        if try shared.tryFileLock(isExclusive: true), try shared.isNamed(path) {
          do throws(FileError) { try prepare(shared, folder) } catch {
            SharedMemory.leave(folder, shared)
            throw error
          }
        }
        // Given up in between: another may have prepared it once more.
        if try shared.tryFileLock(isExclusive: false), try shared.isNamed(path) {
          return shared
        }
        guard monotonicNanoseconds() < deadline else { throw FileError(.lock, errno: EAGAIN) }
        usleep(1000)
      }
    }

    private func makeFolder(_ path: String, isOwned: Bool) throws(FileError) {
      // One of somebody else's making would keep the owner out.
      let mayMake = !isOwned || geteuid() == owner || geteuid() == 0
      if mayMake, unsafe mkdir(path, 0o700) == 0 {
        // Root makes it for the owner of the store.
        if isOwned, geteuid() == 0, owner != 0 { _ = unsafe lchown(path, owner, gid_t.max) }
      } else if mayMake, errno != EEXIST {
        throw FileError(.makeDirectory, .directory, errno: errno)
      }
      let status = try FileStatus(ofPath: path)
      guard status.isFolder, !isOwned || status.owner == owner && !status.isWritableByOthers else {
        throw FileError(.makeDirectory, .directory, errno: EPERM)
      }
    }

    /// Nobody else is here: what the last ones left means nothing.
    private func prepare(_ shared: borrowing FileDescriptor, _ folder: String) throws(FileError) {
      try shared.makeZeros(byteCount: byteCount)
      try shared.write([SharedMemory.format, leaseBase], at: headerStart)
      let path = folder + "/lock"
      guard unsafe unlink(path) == 0 || errno == ENOENT else {
        throw FileError(.remove, errno: errno)
      }
      let lock = try FileDescriptor.openNoFollow(path, ownedBy: nil)
      if geteuid() == 0, owner != 0 { _ = unsafe lchown(path, owner, gid_t.max) }
      // Real pages: a hole that there is no room for would be a signal at the first touch.
      try lock.makeZeros(byteCount: CatalogOptions(path: "").lockByteCount)
    }

    private func openPlace() throws(FileError) -> HeldFile? {
      let path = SharedMemory.placePath(storeFolder)
      do throws(FileError) {
        return HeldFile(
          try isReadOnly
            ? FileDescriptor.openExistingNoFollow(path, toWrite: false)
            : FileDescriptor.openNoFollow(path, ownedBy: nil)
        )
      } catch {
        guard isReadOnly, error.isNotFound else { throw error }
      }
      // Never opened by anybody who writes since the file is there: a read-only open changes nothing.
      return nil
    }

    /// Behind all that `byte` makes.
    private static let unlockedByte: UInt64 = 1 << 62 | 1

    private static func byte(_ device: UInt64, _ inode: UInt64) -> UInt64 {
      let text = "\(OwnerFiles.pidNamespace()) \(device) \(inode)"
      let key = unsafe Array(text.utf8).withUnsafeBytes { xxh3Checksum($0) }
      return 1 + key & 0x3FFF_FFFF_FFFF_FFFF
    }
  }

  // MARK: Leaving

  /// At close, once nothing is touched any more.
  package func leave() {
    let last = own.withLock { own in
      defer { own = nil }
      return own
    }
    if let folder, let shared = last?.shared, Self.leave(folder, shared.descriptor) {
      unlinkLock(folder)
    }
  }

  /// Removes the folder if nobody else is there.
  @discardableResult
  private static func leave(_ folder: String, _ shared: borrowing FileDescriptor) -> Bool {
    // Errors: it is found again when a store is opened.
    do throws(FileError) {
      guard try shared.tryFileLock(isExclusive: true), try shared.isNamed(folder + "/shared")
      else { return false }
    } catch {
      return false
    }
    remove(folder)
    return true
  }

  /// Under the exclusive lock.
  private static func remove(_ folder: String) {
    let names = list(folder)
    // The file that is locked goes last.
    for name in names where name != "shared" { unsafe unlink(folder + "/" + name) }
    unsafe unlink(folder + "/shared")
    unsafe rmdir(folder)
  }

  private static func list(_ folder: String) -> [String] {
    do throws(FileError) { return try LinuxStorage().list(folder) } catch { return [] }
  }

  /// Removes what processes left that were killed, of other stores of the same owner.
  func removeLeftOvers() {
    guard let folder else { return }
    let base = String(folder.dropLast(entry.name.utf8.count + 1))
    for name in Self.list(base).filter({ $0 != entry.name }).prefix(Self.leftOverCountMax) {
      let folder = base + "/" + name
      do throws(FileError) {
        let shared = try FileDescriptor.openExistingNoFollow(folder + "/shared")
        Self.leave(folder, shared)
      } catch {
        // Killed between folder and file, or it is being made: then it is not empty for long.
        if error.isNotFound { unsafe rmdir(folder) }
      }
    }
  }
}
