internal import Glibc
internal import KVCatalog
internal import KVCore
package import KVFile
internal import KVTiers

/// Where the archive's slot files lie: `archive` in the store's folder.
///
/// On another path it is a symbolic link to a folder there that bears the store's UUID, so that every tool finds it and several stores
/// may share a disk. A file `owner` in it says whose it is (docs/file-format.md): without, a folder is the place where a disk is not
/// mounted, or was emptied, and not an empty archive; and a copy of a store, which has its UUID and its link, is not let in.
package final class ArchiveFolder: Sendable {
  /// nil while it is away, or another store's.
  package let files: (any Storage)?
  /// Whether blocks may be moved there.
  let isWritable: Bool
  /// Whether it is this store's for certain: only then is anything in it changed.
  var isOwn: Bool { lock != nil }
  /// Says for as long as the store is open that it uses the archive.
  private let lock: ArchiveLock?

  package static let name = "archive"
  package static let ownerName = "owner"
  package static let lockName = "lock"

  private init(_ files: (any Storage)?, isWritable: Bool = false, lock: ArchiveLock? = nil) {
    self.files = files
    self.isWritable = isWritable
    self.lock = lock
  }

  /// What a maintenance tool sees of the archive, without a lock: nobody has the store open.
  package struct Found {
    package var files: (any Storage)?
    /// A link or a folder is there, and what it held is not.
    package var isAway: Bool
    /// It belongs to the store of which this one is a copy.
    package var isForeign = false
  }

  /// Opens the archive, and makes it first when the configuration wants one and there is none.
  ///
  /// `known` are the catalog's archive files.
  static func open(
    _ folder: StoreFolder,
    _ configuration: StoreConfiguration,
    storeUUID: [UInt8],
    known: Set<SlotFileID>
  ) throws(StoreError) -> ArchiveFolder {
    do throws(FileError) {
      if configuration.readOnly { return ArchiveFolder(try existing(folder)?.files) }
      let isWanted = configuration.archiveBytes > 0
      let id = Identity(storeUUID: storeUUID, folder: try folder.handle.birth())
      if isWanted { try make(folder, configuration, id) }
      guard let (files, isLink) = try existing(folder) else { return ArchiveFolder(nil) }
      switch try Identity.read(files) {
      case .some(let owner):
        // A folder within the store was copied with it; what a link leads to was not.
        guard owner.storeUUID == storeUUID, !isLink || owner == id else {
          guard isWanted else { return ArchiveFolder(nil) }
          throw .archiveOfAnother
        }
        let lock = try ArchiveLock(files, id)
        if owner != id { try id.write(files) }
        return ArchiveFolder(files, isWritable: isWanted, lock: lock)
      case .none:
        // Of a store from before there were owners, or a disk that is not mounted.
        let names = try files.list(".")
        let isEmpty = !names.contains { DiskTier.strayFile($0)?.kind == .unknown }
        guard isWanted, known.isEmpty || !isEmpty else {
          return ArchiveFolder(isEmpty ? nil : files)
        }
        let lock = try ArchiveLock(files, id)
        try id.write(files)
        return ArchiveFolder(files, isWritable: true, lock: lock)
      }
    } catch {
      switch error {
      case .archiveOfAnother: throw .locked(.archiveOfAnother)
      case .archiveElsewhere: throw .invalidArgument(.archivePath)
      default: throw StoreError(error, .createFolder)
      }
    }
  }

  /// What there is of an archive, for a repair.
  package static func find(_ folder: StoreFolder) throws(FileError) -> Found {
    guard try folder.files.fileExists(name) else { return Found(files: nil, isAway: false) }
    guard let (files, isLink) = try existing(folder) else { return Found(files: nil, isAway: true) }
    if isLink, let owner = try Identity.read(files) {
      let id = Identity(storeUUID: owner.storeUUID, folder: try folder.handle.birth())
      guard owner == id else { return Found(files: nil, isAway: false, isForeign: true) }
    }
    let hasOwner = try files.fileExists(ownerName)
    let isEmpty = try !files.list(".").contains { DiskTier.strayFile($0) != nil }
    return Found(files: files, isAway: isEmpty && !hasOwner)
  }

  // MARK: Folders

  /// The folder that is there, and whether by a link; nil when there is none, or none where the link leads.
  package static func existing(
    _ folder: StoreFolder
  ) throws(FileError) -> (files: any Storage, isLink: Bool)? {
    guard try folder.files.fileExists(name) else { return nil }
    guard let target = try folder.handle.linkTarget(name) else {
      do throws(FileError) { return (try folder.files.openFolder(name), false) } catch {
        guard error.isNotFound else { throw error }
        return nil
      }
    }
    // By its absolute path: the working directory is of no consequence.
    guard target.hasPrefix("/") else { throw FileError(.open, .directory, errno: ELOOP) }
    do throws(FileError) {
      let files = try folder.all.openFolder(target)
      try folder.handle.checkLink(name, to: files.folder)
      return (files, true)
    } catch {
      guard error.isNotFound || error.errno == ENOTDIR else { throw error }
      return nil
    }
  }

  /// What the folder of a store's archive is called on another path.
  package static func folderName(ofStore uuid: [UInt8]) -> String {
    uuid.map { hexadecimalText(UInt64($0), digitCount: 2) }.joined()
  }

  private static func make(
    _ folder: StoreFolder,
    _ configuration: StoreConfiguration,
    _ id: Identity
  ) throws(FileError) {
    let store = folder.files
    let hasOne = try store.fileExists(name)
    if configuration.archivePath.isEmpty {
      guard !hasOne else { return }
      try store.makeDirectory(name)
      try id.write(try store.openFolder(name))
      return try store.syncDirectory(".")
    }
    let uuid = folderName(ofStore: id.storeUUID)
    if hasOne {
      guard let target = try folder.handle.linkTarget(name) else { throw .archiveElsewhere }
      // Where the disk is away its path may lead nowhere, or elsewhere.
      guard try existing(folder) != nil else { return }
      guard let wanted = realPath(configuration.archivePath), target == wanted + "/" + uuid else {
        throw .archiveElsewhere
      }
      return
    }
    let all = configuration.storage
    try all.makeDirectory(configuration.archivePath)
    guard let real = realPath(configuration.archivePath) else {
      throw FileError(.open, .directory, errno: ENOENT)
    }
    let parent = try all.openFolder(real)
    try parent.makeDirectory(uuid)
    let files = try parent.openFolder(uuid)
    if let owner = try Identity.read(files) {
      guard owner == id else { throw .archiveOfAnother }
    } else if try files.list(".").isEmpty {
      try id.write(files)
    }
    try parent.syncDirectory(".")
    try folder.handle.makeLink(name, to: real + "/" + uuid)
    try store.syncDirectory(".")
  }

  // MARK: Whose it is

  /// What the file `owner` says: a store, and which of its copies, by when and as which inode its folder was made.
  package struct Identity: Equatable {
    package var storeUUID: [UInt8]
    var folderInode: UInt64
    var folderNanoseconds: UInt64

    package init(storeUUID: [UInt8], folder: (inode: UInt64, nanoseconds: UInt64)) {
      self.storeUUID = storeUUID
      (folderInode, folderNanoseconds) = folder
    }

    private static let magic: UInt64 = 0x3152_4E57_4F53_564B  // "KVSOWNR1"
    private static let byteCount = 48

    /// nil when there is none; one that is damaged is nobody's.
    package static func read(_ files: any Storage) throws(FileError) -> Identity? {
      guard try files.fileExists(ownerName) else { return nil }
      let file = try files.openFile(ownerName, mode: .readOnly, direct: false)
      defer { file.close() }
      let none = Identity(storeUUID: [], folder: (0, 0))
      guard try file.byteCount() >= UInt64(byteCount) else { return none }
      let buffer = try AlignedBuffer(byteCount: byteCount)
      unsafe try file.read(into: buffer.bytes, at: 0)
      var reader = unsafe ByteReader(buffer.readOnly)
      guard reader.read(UInt64.self) == magic, let uuid = reader.readBytes(16),
        let inode = reader.read(UInt64.self), let nanoseconds = reader.read(UInt64.self),
        let checksum = reader.read(UInt64.self),
        unsafe checksum
          == xxh3Checksum(UnsafeRawBufferPointer(rebasing: buffer.readOnly[..<(byteCount - 8)]))
      else { return none }
      return Identity(storeUUID: uuid, folder: (inode, nanoseconds))
    }

    /// Whole or not at all, whenever the process dies.
    package func write(_ files: any Storage) throws(FileError) {
      var writer = ByteWriter(capacity: Self.byteCount)
      writer.append(Self.magic)
      writer.append(contentsOf: storeUUID)
      writer.append(folderInode)
      writer.append(folderNanoseconds)
      writer.append(unsafe writer.bytes.withUnsafeBytes { xxh3Checksum($0) })
      let newName = ownerName + ".new"
      if try files.fileExists(newName) { try files.remove(newName) }
      let file = try files.openFile(newName, mode: .createNew, direct: false)
      defer { file.close() }
      var failure: FileError?
      unsafe writer.bytes.withUnsafeBytes { buffer in
        do throws(FileError) { try unsafe file.write(buffer, at: 0) } catch { failure = error }
      }
      if let failure { throw failure }
      try file.sync()
      try files.rename(newName, to: ownerName)
      try files.syncDirectory(".")
    }

    /// Where in the lock file those of this store have their byte.
    var lockOffset: UInt64 {
      var writer = ByteWriter(capacity: 32)
      writer.append(contentsOf: storeUUID)
      writer.append(folderInode)
      writer.append(folderNanoseconds)
      return unsafe writer.bytes.withUnsafeBytes { xxh3Checksum($0) } >> 2
    }
  }

  /// The processes of one store share a byte of the archive's lock file; any other byte is another store's.
  private final class ArchiveLock: Sendable {
    private let descriptor: FileDescriptor

    init(_ files: any Storage, _ id: Identity) throws(FileError) {
      descriptor = try FileDescriptor.open(lockName, in: files.folder, mode: .create)
      guard try descriptor.shareLock(of: id.lockOffset) else { throw .archiveOfAnother }
    }
  }
}

extension FileError {
  fileprivate static let archiveOfAnother = FileError(.lock, .directory, errno: EUSERS)
  fileprivate static let archiveElsewhere = FileError(.open, .directory, errno: EXDEV)
}
