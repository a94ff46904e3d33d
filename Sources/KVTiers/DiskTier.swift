internal import Glibc
package import KVCore
package import KVFile
internal import Synchronization

/// The durable tiers, disk and archive: slots in preallocated files `TTFFFFFFFF.kvs`, written and read where they lie.
///
/// Each tier has a folder of its own, the archive's maybe on another file system. A file that its tier gives up is renamed to
/// `.gone` before its row goes and removed after; one with data that the catalog does not know is set aside as `-N.aside`.
///
/// Thread-safe.
///
/// Freeing a slot is the catalog's matter; nothing is ever moved or compacted here, so each payload byte is written once.
package final class DiskTier: Sendable {
  private let folders: [Tier: any Storage]
  private let direct: Bool
  private let files = Monitor<[SlotFileID: OpenedFile]>([:])
  /// So that the disk works while the caller verifies and copies.
  private let readers: ServicePool
  /// Beside the thread that calls `write`; apart from the readers, so that no read waits behind writes.
  private let writers: ServicePool
  /// The archive may lie on a disk of its own, which may hang: it has threads of its own, and nobody waits for them without a bound.
  private let archiveLane: PatientLane
  private let archiveReaders: ServicePool
  private let archiveWriters: ServicePool
  private let written = TierCounter()
  private let read = TierCounter()
  private let syncs = Atomic<UInt64>(0)

  private struct OpenedFile {
    let file: any StorageFile
    /// The file system, or the file's mode, allowed no more when it was opened.
    var isReadOnly = false
  }

  /// Reads that are in flight at once; two keep a fast disk busy, four hide a slow one's latency.
  private static let readerCount = 4
  /// Writes that are in flight at once, past the page cache (docs/decisions/0006).
  private static let writerCount = 4
  /// Slots that a file has at most.
  package static let slotCountMax = 8192
  /// Bytes that one system call writes at most, neighbouring slots together.
  private static let writeByteCountMax = 2 << 20

  /// `folders` are those of `.disk` and `.archive`; what is not there is met when it is used.
  package init(
    folders: [Tier: any Storage],
    direct: Bool,
    archiveLimitNanoseconds: UInt64 = 2_000_000_000
  ) throws(FileError) {
    self.folders = folders
    self.direct = direct
    readers = ServicePool(threadCount: Self.readerCount)
    writers = ServicePool(threadCount: Self.writerCount - 1)
    archiveLane = PatientLane(limitNanoseconds: archiveLimitNanoseconds)
    archiveReaders = ServicePool(threadCount: Self.readerCount)
    archiveWriters = ServicePool(threadCount: Self.writerCount - 1)
  }

  /// The archive has not answered for too long: every operation on it is refused with `ETIMEDOUT` until the one under way is over.
  package var isArchiveStuck: Bool { archiveLane.isStuck }

  /// Bytes written to a tier's slot files.
  package func bytesWritten(_ tier: Tier) -> UInt64 { written[tier] }
  /// Bytes read from a tier's slot files.
  package func bytesRead(_ tier: Tier) -> UInt64 { read[tier] }
  /// `fdatasync` calls.
  package var syncCount: UInt64 { syncs.load(ordering: .relaxed) }
  /// Whether open files go past the page cache; nil while none is open.
  package var isDirect: Bool? {
    files.withLock { files in files.isEmpty ? nil : files.values.allSatisfy(\.file.isDirect) }
  }

  // MARK: Files

  /// Makes and preallocates a file; one that is there under this number is not the catalog's.
  package func createFile(
    _ file: SlotFileID,
    slotByteCount: Int,
    slotCount: Int
  ) throws(FileError) {
    let create: @Sendable () throws(FileError) -> Void = { [self] () throws(FileError) in
      try makeFile(file, slotByteCount: slotByteCount, slotCount: slotCount)
    }
    guard file.tier == .archive else { return try create() }
    // Nobody knows of one that comes too late: nothing was ever written to it.
    try archiveLane.run(.allocate, late: { [self] in deleteNewFile(file) }, create)
  }

  private func deleteNewFile(_ file: SlotFileID) {
    let opened = files.withLock { $0.removeValue(forKey: file) }
    opened?.file.close()
    try? folders[file.tier]?.remove(Self.name(of: file))
  }

  private func makeFile(
    _ file: SlotFileID,
    slotByteCount: Int,
    slotCount: Int
  ) throws(FileError) {
    let folder = try folder(of: file.tier)
    let name = Self.name(of: file)
    if try folder.fileExists(name) { try clear(file, in: folder) }
    let opened = try folder.openFile(name, mode: .createNew, direct: direct)
    do throws(FileError) {
      try opened.allocate(byteCount: UInt64(slotByteCount) * UInt64(slotCount))
      try opened.sync()
      try folder.syncDirectory(".")
    } catch {
      opened.close()
      try? folder.remove(name)
      throw error
    }
    files.withLock { $0[file] = OpenedFile(file: opened) }
  }

  /// Says of an empty file that its row is about to go; to be followed by `removeFile`, or by `takeBackFile` where it stays.
  ///
  /// Else one could not tell it from a file whose row was lost.
  package func giveUpFile(_ file: SlotFileID) {
    rename(Self.name(of: file), to: Self.name(of: file, .givenUp), in: file.tier)
  }

  /// Its row stays.
  package func takeBackFile(_ file: SlotFileID) {
    rename(Self.name(of: file, .givenUp), to: Self.name(of: file), in: file.tier)
  }

  private func rename(_ name: String, to newName: String, in tier: Tier) {
    let change: @Sendable () throws(FileError) -> Void = { [self] () throws(FileError) in
      try folder(of: tier).rename(name, to: newName)
    }
    if tier == .archive { try? archiveLane.run(.rename, change) } else { try? change() }
  }

  /// Removes a file that was given up and whose row is gone.
  package func removeFile(_ file: SlotFileID) {
    guard file.tier == .archive else { return deleteFile(file) }
    try? archiveLane.run(.remove) { [self] () throws(FileError) in deleteFile(file) }
  }

  private func deleteFile(_ file: SlotFileID) {
    let opened = files.withLock { $0.removeValue(forKey: file) }
    opened?.file.close()
    try? folders[file.tier]?.remove(Self.name(of: file, .givenUp))
  }

  /// A slot file that is not the catalog's.
  package struct StrayFile: Sendable {
    package let name: String
    package let kind: Kind
    package let file: SlotFileID

    package enum Kind: String, Sendable {
      /// Left by a process that died around a commit, or its row was lost.
      case unknown = ".kvs"
      /// Left by a process that died before it could remove it.
      case givenUp = ".gone"
      /// Holds data, and its row was lost.
      case setAside = ".aside"
    }
  }

  /// The stray files of a tier.
  package func strayFiles(of tier: Tier, except known: Set<SlotFileID>) -> [StrayFile] {
    Self.strays(names(in: tier), of: tier, except: known)
  }

  private static func strays(
    _ names: [String],
    of tier: Tier,
    except known: Set<SlotFileID>
  ) -> [StrayFile] {
    names.compactMap { name in
      guard let stray = strayFile(name), stray.file.tier == tier else { return nil }
      return stray.kind == .unknown && known.contains(stray.file) ? nil : stray
    }
  }

  private func names(in tier: Tier) -> [String] {
    let list: @Sendable () throws(FileError) -> [String] = { [self] () throws(FileError) in
      try folder(of: tier).list(".")
    }
    let names = tier == .archive ? try? archiveLane.run(.list, list) : try? list()
    return names ?? []
  }

  /// What a name in a tier's folder says: two digits of the tier, eight of the number, what it is.
  package static func strayFile(_ name: String) -> StrayFile? {
    let stem = name.prefix { $0 != "." && $0 != "-" }
    guard stem.utf8.count == 10, let kind = StrayFile.Kind(rawValue: suffix(of: name)),
      let tier = UInt8(stem.prefix(2), radix: 16).flatMap(Tier.init(rawValue:)),
      let number = UInt32(stem.dropFirst(2), radix: 16)
    else { return nil }
    return StrayFile(name: name, kind: kind, file: SlotFileID(tier: tier, file: number))
  }

  private static func suffix(of name: String) -> String {
    name.lastIndex(of: ".").map { String(name[$0...]) } ?? ""
  }

  /// What a stray file takes up, which its length may be far beyond; 0 when it cannot be opened.
  package func byteCount(of stray: StrayFile) -> Int {
    let file = try? folders[stray.file.tier]?.openFile(stray.name, mode: .readOnly, direct: false)
    let count = try? file?.allocatedByteCount()
    return Int(clamping: count ?? 0)
  }

  /// Bytes of the files of a tier that were set aside: they count against its bound.
  package func setAsideByteCount(of tier: Tier) -> Int {
    strayFiles(of: tier, except: []).reduce(0) {
      $1.kind == .setAside ? $0 + byteCount(of: $1) : $0
    }
  }

  /// Sees to stray files, inside a write transaction: nobody else makes or removes files meanwhile.
  ///
  /// What was given up goes, unless its row is there after all, and so does what was never written. Data is never removed only because
  /// the catalog does not know it: it is set aside. `leaving` are the files that this very transaction gives up. What cannot be done is
  /// tried again the next time.
  package func settleStrayFiles(
    of tier: Tier,
    known: Set<SlotFileID>,
    leaving: Set<SlotFileID>
  ) {
    let work: @Sendable () throws(FileError) -> Void = { [self] () throws(FileError) in
      let names = try folder(of: tier).list(".")
      try settle(Self.strays(names, of: tier, except: known), known, leaving)
    }
    if tier == .archive { try? archiveLane.run(.list, work) } else { try? work() }
  }

  private func settle(
    _ strays: [StrayFile],
    _ known: Set<SlotFileID>,
    _ leaving: Set<SlotFileID>
  ) throws(FileError) {
    for stray in strays where !leaving.contains(stray.file) {
      let folder = try folder(of: stray.file.tier)
      switch stray.kind {
      case .unknown: try? clear(stray.file, in: folder)
      case .givenUp:
        let name = Self.name(of: stray.file)
        if known.contains(stray.file), try !folder.fileExists(name) {
          try? folder.rename(stray.name, to: name)
        } else {
          try? folder.remove(stray.name)
        }
      case .setAside: break
      }
    }
  }

  /// Frees the name of a file that the catalog does not know.
  private func clear(_ file: SlotFileID, in folder: any Storage) throws(FileError) {
    let name = Self.name(of: file)
    let opened = files.withLock { $0.removeValue(forKey: file) }
    opened?.file.close()
    do throws(FileError) {
      let file = try folder.openFile(name, mode: .readOnly, direct: false)
      defer { file.close() }
      if try Self.isBlank(file) { return try folder.remove(name) }
    } catch {
      guard !error.isNotFound else { return }
    }
    var number = 1
    while try folder.fileExists(Self.name(of: file, .setAside, number)) { number += 1 }
    try folder.rename(name, to: Self.name(of: file, .setAside, number))
  }

  /// What is longer is not read to find out whether it is blank, with the catalog's write lock held.
  private static let blankByteCountMax: UInt64 = 8 << 30

  /// Whether no slot of a file was ever written; where its room had to be written, that is zeros.
  private static func isBlank(_ file: any StorageFile) throws(FileError) -> Bool {
    guard try file.hasData() else { return true }
    guard try file.byteCount() <= blankByteCountMax else { return false }
    let chunk = try AlignedBuffer(byteCount: 1 << 20)
    let byteCount = try file.byteCount()
    var offset: UInt64 = 0
    while offset < byteCount {
      let count = unsafe Int(min(UInt64(chunk.bytes.count), byteCount - offset))
      let part = unsafe UnsafeMutableRawBufferPointer(rebasing: chunk.bytes[..<count])
      try unsafe file.read(into: part, at: offset)
      guard unsafe part.allSatisfy({ $0 == 0 }) else { return false }
      offset += UInt64(count)
    }
    return true
  }

  private func open(_ file: SlotFileID, toWrite: Bool) throws(FileError) -> any StorageFile {
    let known = files.withLock { $0[file] }
    // What could once be opened for reading only is tried again when it is to be written.
    if let known, !toWrite || !known.isReadOnly { return known.file }
    let folder = try folder(of: file.tier)
    let opened: OpenedFile
    do throws(FileError) {
      opened = OpenedFile(file: try openExisting(file, in: folder, mode: .existing))
    } catch {
      if toWrite, error.isNotFound {
        // Somebody removed it. Its slots are still the catalog's: what was in them is gone, they are not.
        let name = Self.name(of: file)
        opened = OpenedFile(file: try folder.openFile(name, mode: .create, direct: direct))
        try folder.syncDirectory(".")
      } else {
        // A read-only store, or one on a read-only file system.
        guard !toWrite, [EACCES, EPERM, EROFS].contains(error.errno) else { throw error }
        opened = OpenedFile(
          file: try openExisting(file, in: folder, mode: .readOnly),
          isReadOnly: true
        )
      }
    }
    return files.withLock { files in
      if let other = files[file], opened.isReadOnly || !other.isReadOnly { return other.file }
      files[file] = opened
      return opened.file
    }
  }

  /// Opens a file by its name, or by the one that it has while it is given up.
  ///
  /// Until that is committed its blocks are the catalog's: for those who read beside it, and after a process that died meanwhile. It
  /// may get its own name back between the two.
  private func openExisting(
    _ file: SlotFileID,
    in folder: any Storage,
    mode: OpenMode
  ) throws(FileError) -> any StorageFile {
    var attemptCount = 0
    while true {
      for kind in [StrayFile.Kind.unknown, .givenUp] {
        do throws(FileError) {
          return try folder.openFile(Self.name(of: file, kind), mode: mode, direct: direct)
        } catch {
          attemptCount += 1
          guard error.isNotFound, attemptCount < 4 else { throw error }
        }
      }
    }
  }

  /// Closes a file whose name is another file's by now, or nobody's; whether there is such a file to be opened.
  package func closeReplaced(_ file: SlotFileID) -> Bool {
    guard let known = files.withLock({ $0[file] }), let folder = folders[file.tier]?.folder else {
      return false
    }
    let now = folder.identity(of: Self.name(of: file))
    guard let identity = try? known.file.identity(), identity != now else { return false }
    files.withLock { if $0[file]?.file === known.file { $0[file] = nil } }
    return now != nil
  }

  private func folder(of tier: Tier) throws(FileError) -> any Storage {
    guard let folder = folders[tier] else { throw FileError(.open, .directory, errno: ENOENT) }
    return folder
  }

  /// Whether the tier's folder is there.
  package func hasFolder(of tier: Tier) -> Bool { folders[tier] != nil }

  /// A slot file's name in its tier's folder.
  package static func name(
    of file: SlotFileID,
    _ kind: StrayFile.Kind = .unknown,
    _ number: Int = 0
  ) -> String {
    hexadecimalText(UInt64(file.tier.rawValue), digitCount: 2)
      + hexadecimalText(UInt64(file.file), digitCount: 8)
      + (number > 0 ? "-\(number)" : "") + kind.rawValue
  }

  // MARK: Writing

  /// One slot's bytes from its start on; a multiple of 4096, in memory aligned to 4096.
  ///
  /// Unchecked: the memory is lent until the write is over. One to the archive may be over long after it was given up, so that it
  /// needs an owner.
  @safe package struct Write: @unchecked Sendable {
    package let address: SlotAddress
    let slotByteCount: Int
    let bytes: UnsafeRawBufferPointer
    let owner: AlignedBuffer?

    package init(
      address: SlotAddress,
      slotByteCount: Int,
      bytes: UnsafeRawBufferPointer,
      owner: AlignedBuffer? = nil
    ) {
      self.address = address
      self.slotByteCount = slotByteCount
      unsafe self.bytes = unsafe bytes
      self.owner = owner
    }
  }

  /// Writes slots; neighbours go out in one call, and several calls at once.
  ///
  /// Returns when all are over; after an error some may not have been begun. Not durable before `sync`.
  package func write(_ writes: [Write]) throws(FileError) {
    guard writes.allSatisfy({ unsafe $0.bytes.count <= $0.slotByteCount }) else {
      assertionFailure("a write beyond its slot")
      throw FileError(.write, errno: 0)
    }
    let archived = writes.filter { $0.address.tier == .archive }
    let others = archived.isEmpty ? writes : writes.filter { $0.address.tier != .archive }
    if !others.isEmpty { try write(others, with: writers) }
    guard !archived.isEmpty else { return }
    guard archived.allSatisfy({ $0.owner != nil }) else {
      assertionFailure("a write to the archive from memory that may go before it is over")
      throw FileError(.write, errno: 0)
    }
    try archiveLane.run(.write) { [self] () throws(FileError) in
      try write(archived, with: archiveWriters)
    }
  }

  private func write(_ writes: [Write], with writers: ServicePool) throws(FileError) {
    let batch = WriteBatch(try calls(for: writes))
    // Writes into the page cache are copies: more threads are of no use there.
    if isDirect == true {
      for _ in 1..<min(Self.writerCount, max(batch.callCount, 1)) {
        // Without threads to spare the calls are all made here.
        if writers.submit({ [self] in batch.run(perform) }) != nil { break }
      }
    }
    batch.run(perform)
    if let error = batch.wait() { throw error }
  }

  private func perform(_ call: WriteCall) throws(FileError) {
    try unsafe call.file.write(call.buffers, at: call.offset)
    written.add(call.byteCount, to: call.tier)
  }

  /// The calls that these writes take, by address.
  private func calls(for writes: [Write]) throws(FileError) -> [WriteCall] {
    var calls: [WriteCall] = []
    let ordered = writes.sorted {
      ($0.address.file, $0.address.slot) < ($1.address.file, $1.address.slot)
    }
    var start = 0
    while start < ordered.count {
      let first = ordered[start]
      var end = start + 1
      var byteCount = unsafe first.bytes.count
      // Neighbours, as long as the one before fills its slot to the end.
      while end < ordered.count, ordered[end].address.fileID == first.address.fileID,
        ordered[end].address.slot == ordered[end - 1].address.slot + 1,
        unsafe ordered[end - 1].bytes.count == first.slotByteCount,
        unsafe byteCount + ordered[end].bytes.count <= Self.writeByteCountMax
      {
        unsafe byteCount += ordered[end].bytes.count
        end += 1
      }
      unsafe calls.append(
        WriteCall(
          file: try open(first.address.fileID, toWrite: true),
          buffers: ordered[start..<end].map { unsafe $0.bytes },
          offset: UInt64(first.address.slot) * UInt64(first.slotByteCount),
          tier: first.address.tier,
          byteCount: byteCount
        )
      )
      start = end
    }
    return calls
  }

  /// Makes what was written to these files durable.
  ///
  /// For the thread that wrote it. After an error all that was written since the last sync has to be written again: a later sync does not
  /// tell of it.
  package func sync(files: Set<SlotFileID>) throws(FileError) {
    for file in files.sorted(by: { $0.file < $1.file }) {
      guard file.tier == .archive else {
        try sync(file)
        continue
      }
      try archiveLane.run(.sync) { [self] () throws(FileError) in try sync(file) }
    }
  }

  private func sync(_ file: SlotFileID) throws(FileError) {
    let opened = try open(file, toWrite: true)
    do throws(FileError) {
      try opened.sync()
      // Of a file that was removed or moved nobody reads again what was written.
      guard let folder = try folder(of: file.tier).folder,
        try opened.identity() == folder.identity(of: Self.name(of: file))
      else { throw FileError(.sync, errno: ENOENT) }
    } catch {
      // The kernel may have dropped what it could not write: this descriptor is not written through again, the next
      // write opens the file anew.
      self.files.withLock { if $0[file]?.file === opened { $0[file] = nil } }
      throw error
    }
    syncs.add(1, ordering: .relaxed)
  }

  // MARK: Reading

  /// Starts reads that are under way at once.
  ///
  /// Without `mayReadHere` they all go to other threads, so that the caller's can stop waiting.
  package func startReads(_ requests: [ReadRequest], mayReadHere: Bool = true) -> ReadBatch {
    let batch = ReadBatch(count: requests.count)
    for (index, request) in requests.enumerated() {
      let job = ReadJob(batch: batch, index: index, request: request, tier: self)
      let isArchived = request.address.tier == .archive
      // One read of the disk gains nothing from another thread; without any to be had it is done here as well.
      let runsHere = requests.count == 1 && mayReadHere && !isArchived
      let readers = isArchived ? archiveReaders : readers
      if runsHere || readers.submit({ job.run() }) != nil { job.run() }
    }
    return batch
  }

  func perform(_ request: ReadRequest) -> FileError? {
    do throws(FileError) {
      let file = try open(request.address.fileID, toWrite: false)
      let start = UInt64(request.address.slot) * UInt64(request.slotByteCount)
      try unsafe file.read(into: request.buffer, at: start + UInt64(request.offset))
      unsafe read.add(request.buffer.count, to: request.address.tier)
      return request.completion?()
    } catch {
      return error
    }
  }

  /// Ends the reader threads and closes the files.
  package func close() {
    readers.stop()
    writers.stop()
    archiveLane.stop()
    archiveReaders.stop()
    archiveWriters.stop()
    let opened = files.withLock { files in
      defer { files = [:] }
      return files
    }
    for opened in opened.values { opened.file.close() }
  }
}

/// Bytes by durable tier.
private final class TierCounter: Sendable {
  private let disk = Atomic<UInt64>(0)
  private let archive = Atomic<UInt64>(0)

  func add(_ byteCount: Int, to tier: Tier) {
    if tier == .archive {
      archive.add(UInt64(byteCount), ordering: .relaxed)
    } else {
      disk.add(UInt64(byteCount), ordering: .relaxed)
    }
  }

  subscript(_ tier: Tier) -> UInt64 {
    tier == .archive ? archive.load(ordering: .relaxed) : disk.load(ordering: .relaxed)
  }
}
