internal import Glibc
internal import KVCatalog
public import KVCore
internal import KVFile
public import KVStore

/// What `Store.moveArchive` did.
public struct ArchiveMove: Sendable, Equatable {
  /// The folder in which the archive lies now.
  public var path: String
  /// Files that were copied; 0 when they were found there.
  public var fileCount = 0
  /// Their bytes.
  public var byteCount = 0
}

extension Store {
  /// Lets the archive of a store that nobody has open lie on another path, for example on another disk.
  ///
  /// Its files are copied and synced, then the link in the store's folder is exchanged, then the old ones are removed: whenever
  /// the process dies, the store has all of its archive in one of the two places, and the same call goes on. Files that
  /// somebody has moved there already, while the old place is away, are found there. The engine opens the store with the new
  /// path from then on.
  ///
  /// - Parameters:
  ///   - configuration: path and clock.
  ///   - path: the folder that holds the archive's folder, as `StoreConfiguration.archivePath`; made when absent.
  ///   - progress: is told of the bytes that are copied, and of how many there are.
  /// - Returns: where it lies now, and what was copied.
  /// - Throws: `StoreError`: `.locked(.inUse)` while a process has the store open, `.locked(.archiveOfAnother)` when another
  ///   store's archive is there, `.noSpace` when it does not fit, `.io` with `ENOENT` when the archive is away and not at the new
  ///   place either.
  public static func moveArchive(
    _ configuration: StoreConfiguration,
    to path: String,
    progress: (_ byteCount: Int, _ of: Int) -> Void = { _, _ in }
  ) throws(StoreError) -> ArchiveMove {
    guard !path.isEmpty, !path.utf8.contains(0) else { throw .invalidArgument(.archivePath) }
    let folder = try StoreFolder.existing(configuration)
    let locks = try RepairLocks(folder)
    defer { withExtendedLifetime(locks) {} }
    let uuid = try storeUUID(folder, configuration)
    do throws(FileError) {
      let move = try ArchiveMover(folder, uuid, path)
      return try move.run(progress)
    } catch {
      if error.errno == EUSERS { throw .locked(.archiveOfAnother) }
      throw StoreError(error, .createFolder)
    }
  }

  private static func storeUUID(
    _ folder: StoreFolder,
    _ configuration: StoreConfiguration
  ) throws(StoreError) -> [UInt8] {
    let options: CatalogOptions
    do throws(FileError) { options = try folder.catalogOptions(isReadOnly: true) } catch {
      throw StoreError(error, .openCatalog)
    }
    let memory = try SharedMemory.enter(folder, isReadOnly: true, configuration.clock)
    defer { memory.leave() }
    let catalog = try memory.openCatalog(options)
    defer { catalog.close() }
    return catalog.meta.storeUUID
  }
}

/// One move of an archive, step by step.
private struct ArchiveMover {
  private let folder: StoreFolder
  private let id: ArchiveFolder.Identity
  private let parent: any Storage
  private let target: any Storage
  private let targetPath: String

  /// The link that is about to change places with the archive, and what had its place afterwards.
  private static let newName = ArchiveFolder.name + ".new"
  private static let chunkByteCount = 4 << 20

  init(_ folder: StoreFolder, _ uuid: [UInt8], _ path: String) throws(FileError) {
    self.folder = folder
    id = ArchiveFolder.Identity(storeUUID: uuid, folder: try folder.handle.birth())
    try folder.all.makeDirectory(path)
    guard let real = realPath(path) else { throw FileError(.open, .directory, errno: ENOENT) }
    let name = ArchiveFolder.folderName(ofStore: uuid)
    parent = try folder.all.openFolder(real)
    try parent.makeDirectory(name)
    target = try parent.openFolder(name)
    targetPath = real + "/" + name
  }

  func run(_ progress: (Int, Int) -> Void) throws(FileError) -> ArchiveMove {
    var move = ArchiveMove(path: targetPath)
    if try isThere() {
      try removeOld()
      return move
    }
    // Of a run that ended before the exchange.
    if try folder.files.fileExists(Self.newName) { try folder.files.remove(Self.newName) }
    if let owner = try ArchiveFolder.Identity.read(target) {
      guard owner == id else { throw .archiveOfAnother }
    }
    let source = try ArchiveFolder.existing(folder)?.files
    if let source, let owner = try ArchiveFolder.Identity.read(source) {
      guard owner == id else { throw .archiveOfAnother }
      (move.fileCount, move.byteCount) = try copy(source, progress)
    } else if try ArchiveFolder.Identity.read(target) == nil {
      // Neither here nor there: only a store that has none may begin with an empty one.
      guard try !folder.files.fileExists(ArchiveFolder.name) else {
        throw FileError(.open, .directory, errno: ENOENT)
      }
    }
    try id.write(target)
    try target.syncDirectory(".")
    try parent.syncDirectory(".")
    try folder.handle.makeLink(Self.newName, to: targetPath)
    if try folder.files.fileExists(ArchiveFolder.name) {
      try folder.handle.exchange(ArchiveFolder.name, with: Self.newName)
    } else {
      try folder.files.rename(Self.newName, to: ArchiveFolder.name)
    }
    try folder.files.syncDirectory(".")
    try removeOld()
    return move
  }

  private func isThere() throws(FileError) -> Bool {
    try folder.handle.linkTarget(ArchiveFolder.name) == targetPath
  }

  // MARK: Copying

  private func copy(
    _ source: any Storage,
    _ progress: (Int, Int) -> Void
  ) throws(FileError) -> (fileCount: Int, byteCount: Int) {
    let names = try source.list(".").filter {
      $0 != ArchiveFolder.lockName && !$0.hasPrefix(ArchiveFolder.ownerName)
    }
    var byteCounts: [String: Int] = [:]
    var total = 0
    for name in names {
      let file = try source.openFile(name, mode: .readOnly, direct: false)
      defer { file.close() }
      byteCounts[name] = Int(clamping: try file.byteCount())
      total += byteCounts[name] ?? 0
    }
    guard try target.freeByteCount(".") > UInt64(total) else {
      throw FileError(.allocate, errno: ENOSPC)
    }
    let buffer = try AlignedBuffer(byteCount: Self.chunkByteCount)
    var done = 0
    for name in names.sorted() {
      try copy(name, byteCounts[name] ?? 0, source, buffer) {
        done += $0; progress(done, total)
      }
    }
    return (names.count, total)
  }

  private func copy(
    _ name: String,
    _ byteCount: Int,
    _ source: any Storage,
    _ buffer: AlignedBuffer,
    _ copied: (Int) -> Void
  ) throws(FileError) {
    let newName = name + ".new"
    if try target.fileExists(newName) { try target.remove(newName) }
    let from = try source.openFile(name, mode: .readOnly, direct: false)
    defer { from.close() }
    let to = try target.openFile(newName, mode: .createNew, direct: false)
    defer { to.close() }
    try to.allocate(byteCount: UInt64(byteCount))
    var offset = 0
    while offset < byteCount {
      let count = min(Self.chunkByteCount, byteCount - offset)
      unsafe try from.read(
        into: UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[0..<count]),
        at: UInt64(offset)
      )
      unsafe try to.write(
        UnsafeRawBufferPointer(rebasing: buffer.readOnly[0..<count]),
        at: UInt64(offset)
      )
      offset += count
      copied(count)
    }
    try to.sync()
    try target.rename(newName, to: name)
  }

  // MARK: The old place

  /// Removes what had the archive's place before: the copies are durable, and the link leads to them.
  private func removeOld() throws(FileError) {
    let name = Self.newName
    guard try folder.files.fileExists(name) else { return }
    let old: any Storage
    let link = try folder.handle.linkTarget(name)
    if let link {
      // Where it is away it stays as it is; the link goes.
      guard link != targetPath, let files = try? folder.all.openFolder(link),
        try ArchiveFolder.Identity.read(files) == id
      else { return try folder.files.remove(name) }
      old = files
    } else {
      old = try folder.files.openFolder(name)
    }
    // Whose it is goes last.
    let names = try old.list(".").sorted { a, _ in !a.hasPrefix(ArchiveFolder.ownerName) }
    for name in names { try old.remove(name) }
    try old.syncDirectory(".")
    guard let link else { return try folder.handle.removeFolder(name) }
    // The folder that bore the store's name; the one around it is somebody's.
    let end = link.lastIndex(of: "/") ?? link.startIndex
    let around = try folder.all.openFolder(String(link[..<end]))
    try around.folder?.removeFolder(String(link[link.index(after: end)...]))
    try folder.files.remove(name)
  }
}

extension FileError {
  fileprivate static let archiveOfAnother = FileError(.lock, .directory, errno: EUSERS)
}
