import Glibc
import Synchronization

/// The folder on tmpfs through which slot files go to and come from the server: what it was given as `--slot-save-path`.
///
/// Only this companion's files are ever touched, and nobody else may have the folder while it runs.
package final class SlotFolder: Sendable {
  package let path: String
  private let descriptor: Int32
  private let spare = Mutex<SpareFile?>(nil)

  /// How this companion's files begin.
  static let prefix = "kvstore-"

  /// Opens the folder, creating it (0700) when absent, and takes it for this process.
  package init(_ path: String) throws(SlotFileError) {
    self.path = path
    if mkdir(path, 0o700) != 0, errno != EEXIST { throw .file("creating \(path)", errno: errno) }
    descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .file("opening \(path)", errno: errno) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      close(descriptor)
      throw .file("looking at \(path)", errno: errno)
    }
    // Prompts can be read out of slot files, and the server makes them 0644.
    guard status.st_mode & 0o077 == 0 else {
      close(descriptor)
      throw .unusable("\(path) can be read by other users: chmod 700 \(path)")
    }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      close(descriptor)
      throw .unusable("\(path) is in use by another kvstore-llama; each needs a folder of its own")
    }
    removeLeftOvers()
  }

  deinit { close(descriptor) }

  /// A name that no file has had.
  package func newName() -> String {
    var generator = SystemRandomNumberGenerator()
    return Self.prefix + String(generator.next(), radix: 36) + ".slot"
  }

  /// Removes what a killed companion or server left.
  package func removeLeftOvers() {
    guard let directory = opendir(path) else { return }
    defer { closedir(directory) }
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name.hasPrefix(Self.prefix) { remove(name) }
    }
  }

  package func remove(_ name: String) { unlinkat(descriptor, name, 0) }

  /// Makes a file of exactly so many bytes, all of them there: a full tmpfs is an error here and no signal later.
  package func create(_ name: String, byteCount: Int) throws(SlotFileError) -> MappedFile {
    if let spare = spare.withLock({ $0.take() }) {
      if let file = try? spare.named(name, in: descriptor, byteCount: byteCount) { return file }
      // What it has of a full tmpfs goes with it.
      remove(name)
    }
    let file = openat(
      descriptor,
      name,
      O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
      mode_t(0o600)
    )
    guard file >= 0 else { throw .file("creating a slot file", errno: errno) }
    defer { close(file) }
    let failed = posix_fallocate(file, 0, byteCount)
    guard failed == 0 else {
      remove(name)
      throw .file("making room for a slot file of \(byteCount) bytes", errno: failed)
    }
    do throws(SlotFileError) {
      return try MappedFile(file, byteCount: byteCount, isWritable: true)
    } catch {
      remove(name)
      throw error
    }
  }

  /// Has the pages of the next file made now, while nobody waits for it: that takes longer than to fill them.
  ///
  /// The file has no name, and nothing in it, until it is created.
  package func prepare(byteCount: Int) {
    guard spare.withLock({ $0 == nil }) else { return }
    let count = min(byteCount, SpareFile.byteCountMax, freeByteCount / 4)
    guard count > 0, let made = SpareFile(in: path, byteCount: count) else { return }
    spare.withLock { $0 = made }
  }

  /// Takes a file that the server has written: mapped, and no longer in the folder.
  package func take(_ name: String) throws(SlotFileError) -> MappedFile {
    let file = openat(descriptor, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard file >= 0 else { throw .file("opening a saved slot file", errno: errno) }
    defer { close(file) }
    remove(name)
    var status = stat()
    guard fstat(file, &status) == 0 else { throw .file("looking at a slot file", errno: errno) }
    guard status.st_mode & S_IFMT == S_IFREG, status.st_size >= 12 else { throw .notASlotFile }
    return try MappedFile(file, byteCount: Int(status.st_size), isWritable: false)
  }

  /// Whether a file of this name is there.
  package func has(_ name: String) -> Bool { faccessat(descriptor, name, F_OK, 0) == 0 }

  /// Bytes that are free on the file system.
  package var freeByteCount: Int {
    var status = statvfs()
    guard fstatvfs(descriptor, &status) == 0 else { return 0 }
    return Int(status.f_bavail) * Int(status.f_frsize)
  }
}

/// The bytes of a slot file.
///
/// Safe to share: a saved one is only read, one that is made is written by whoever made it until the server gets its name.
package final class MappedFile: @unchecked Sendable {
  package let bytes: UnsafeMutableRawBufferPointer
  /// More than `bytes`, where the file became another size than it was mapped for.
  private let mappedByteCount: Int

  init(_ file: Int32, byteCount: Int, isWritable: Bool) throws(SlotFileError) {
    let protection = isWritable ? PROT_READ | PROT_WRITE : PROT_READ
    // Of pages that are there already, all are entered at once: a fault for each costs more than the copy.
    let address = mmap(nil, byteCount, protection, MAP_SHARED | MAP_POPULATE, file, 0)
    guard let address, address != MAP_FAILED else {
      throw .file("mapping a slot file", errno: errno)
    }
    bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    mappedByteCount = byteCount
  }

  /// Takes over a mapping that is at least as long.
  init(_ address: UnsafeMutableRawPointer, byteCount: Int, mappedByteCount: Int) {
    bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    self.mappedByteCount = mappedByteCount
  }

  deinit { munmap(bytes.baseAddress, mappedByteCount) }

  package var readable: UnsafeRawBufferPointer { UnsafeRawBufferPointer(bytes) }
}
