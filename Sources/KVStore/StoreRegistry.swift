internal import Glibc
internal import KVCore
internal import Synchronization

/// The stores that this process has open, by device and inode: LMDB must not be opened twice in one process.
enum StoreRegistry {
  private struct Identity: Hashable {
    let device: UInt64
    let inode: UInt64
  }

  private struct Entry {
    let core: StoreCore
    var openCount: Int
  }

  private static let entries = Mutex<[Identity: Entry]>([:])

  static func open(_ configuration: StoreConfiguration) throws(StoreError) -> StoreCore {
    try StoreCore.prepareFolder(configuration)
    let identity = try identity(of: configuration.path)
    // Opening waits in this lock, so that two threads do not open one store twice.
    return try entries.withLock { (entries) throws(StoreError) in
      if let entry = entries[identity], !entry.core.isForked {
        entries[identity]?.openCount += 1
        return entry.core
      }
      if let parents = entries[identity]?.core {
        // A forked child: the parent's store must not be torn down here, so it is never released.
        _ = unsafe Unmanaged.passRetained(parents)
      }
      let core = try StoreCore(configuration)
      entries[identity] = Entry(core: core, openCount: 1)
      return core
    }
  }

  /// Flushes, and shuts down when this was the last handle.
  static func close(_ core: StoreCore) throws(StoreError) {
    let identity = entries.withLock { entries in entries.first { $0.value.core === core }?.key }
    guard let identity else { throw .closed }
    var failure: StoreError?
    do throws(StoreError) { _ = try core.flush(timeoutNanoseconds: 0) } catch { failure = error }
    entries.withLock { entries in
      entries[identity]?.openCount -= 1
      if entries[identity]?.openCount == 0 {
        entries[identity] = nil
        core.shutDown()
      }
    }
    if let failure, failure != .readOnly { throw failure }
  }

  private static func identity(of path: String) throws(StoreError) -> Identity {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw .io(.createFolder, errno: errno) }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw .notAStore }
    return Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
  }
}
