internal import Glibc
package import KVCore
package import KVFile
internal import Synchronization

/// The durable tiers, disk and archive: slots in preallocated files `TTFFFFFFFF.kvs`, written and read where they lie.
///
/// Each tier has a folder of its own, the archive's maybe on another file system.
///
/// Thread-safe.
///
/// Freeing a slot is the catalog's matter; nothing is ever moved or compacted here, so each payload byte is written once.
package final class DiskTier: Sendable {
  private let directories: [Tier: String]
  private let storage: any Storage
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
  /// Bytes that one system call writes at most, neighbouring slots together.
  private static let writeByteCountMax = 2 << 20

  /// `directories` are those of `.disk` and `.archive`; what is not there is met when it is used.
  package init(
    directories: [Tier: String],
    storage: any Storage,
    direct: Bool,
    archiveLimitNanoseconds: UInt64 = 2_000_000_000
  ) throws(FileError) {
    self.directories = directories
    self.storage = storage
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

  /// Makes and preallocates a file; one that a crash left behind under this number is replaced.
  package func createFile(
    _ file: SlotFileID,
    slotByteCount: Int,
    slotCount: Int
  ) throws(FileError) {
    let create: @Sendable () throws(FileError) -> Void = { [self] () throws(FileError) in
      try makeFile(file, slotByteCount: slotByteCount, slotCount: slotCount)
    }
    guard file.tier == .archive else { return try create() }
    // Nobody knows of one that comes too late.
    try archiveLane.run(.allocate, late: { [self] in deleteFile(file) }, create)
  }

  private func makeFile(
    _ file: SlotFileID,
    slotByteCount: Int,
    slotCount: Int
  ) throws(FileError) {
    let path = path(of: file)
    if storage.fileExists(path) { try storage.remove(path) }
    let opened = try storage.openFile(path, mode: .createNew, direct: direct)
    do throws(FileError) {
      try opened.allocate(byteCount: UInt64(slotByteCount) * UInt64(slotCount))
      try opened.sync()
      try storage.syncDirectory(directory(of: file.tier))
    } catch {
      opened.close()
      try? storage.remove(path)
      throw error
    }
    files.withLock { $0[file] = OpenedFile(file: opened) }
  }

  /// Removes a file whose row is gone.
  ///
  /// Should it fail, the file is replaced when its number comes up, or stays as waste.
  package func removeFile(_ file: SlotFileID) {
    guard file.tier == .archive else { return deleteFile(file) }
    try? archiveLane.run(.remove) { [self] () throws(FileError) in deleteFile(file) }
  }

  private func deleteFile(_ file: SlotFileID) {
    let opened = files.withLock { $0.removeValue(forKey: file) }
    opened?.file.close()
    try? storage.remove(path(of: file))
  }

  /// A tier's files in its directory but these: a process that died around a commit left them.
  package func strayFiles(of tier: Tier, except known: Set<SlotFileID>) -> [SlotFileID] {
    let prefix = hexadecimalText(UInt64(tier.rawValue), digitCount: 2)
    return names(in: tier).compactMap { name in
      guard name.count == 14, name.hasPrefix(prefix), name.hasSuffix(".kvs"),
        let number = UInt32(name.dropFirst(2).dropLast(4), radix: 16)
      else { return nil }
      let file = SlotFileID(tier: tier, file: number)
      return known.contains(file) ? nil : file
    }
  }

  private func names(in tier: Tier) -> [String] {
    let list: @Sendable () throws(FileError) -> [String] = { [self] () throws(FileError) in
      try storage.list(directory(of: tier))
    }
    let names = tier == .archive ? try? archiveLane.run(.list, list) : try? list()
    return names ?? []
  }

  /// The length of a file; 0 when it cannot be opened.
  package func byteCount(of file: SlotFileID) -> Int {
    let count = try? open(file, toWrite: false).byteCount()
    return Int(clamping: count ?? 0)
  }

  /// Removes stray files, inside a write transaction: nobody else makes or removes files meanwhile.
  ///
  /// What cannot be removed stays, and is tried again the next time.
  package func removeStrayFiles(of tier: Tier, except known: Set<SlotFileID>) {
    for file in strayFiles(of: tier, except: known) { removeFile(file) }
  }

  private func open(_ file: SlotFileID, toWrite: Bool) throws(FileError) -> any StorageFile {
    let known = files.withLock { $0[file] }
    // What could once be opened for reading only is tried again when it is to be written.
    if let known, !toWrite || !known.isReadOnly { return known.file }
    let path = path(of: file)
    let opened: OpenedFile
    do throws(FileError) {
      opened = OpenedFile(file: try storage.openFile(path, mode: .existing, direct: direct))
    } catch {
      // A read-only store, or one on a read-only file system.
      guard !toWrite, [EACCES, EPERM, EROFS].contains(error.errno) else { throw error }
      opened = OpenedFile(
        file: try storage.openFile(path, mode: .readOnly, direct: direct),
        isReadOnly: true
      )
    }
    return files.withLock { files in
      if let other = files[file], opened.isReadOnly || !other.isReadOnly { return other.file }
      files[file] = opened
      return opened.file
    }
  }

  private func directory(of tier: Tier) -> String { directories[tier] ?? "" }

  private func path(of file: SlotFileID) -> String {
    directory(of: file.tier) + "/" + Self.name(of: file)
  }

  /// A slot file's name in its tier's folder.
  package static func name(of file: SlotFileID) -> String {
    hexadecimalText(UInt64(file.tier.rawValue), digitCount: 2)
      + hexadecimalText(UInt64(file.file), digitCount: 8) + ".kvs"
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
    do throws(FileError) { try opened.sync() } catch {
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
