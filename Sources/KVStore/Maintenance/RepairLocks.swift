internal import Glibc
internal import KVCore
internal import KVFile

/// Keeps everybody else out of a store while it is repaired.
///
/// `repair.lock` is what openers look at; `opening.lock` makes sure that none is in the middle of it.
final class RepairLocks {
  private let locks: [Lock]

  private final class Lock {
    let descriptor: FileDescriptor
    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
  }

  static func path(_ folder: String) -> String { folder + "/repair.lock" }

  /// Throws `.locked` when a process has the store open or repairs it.
  init(_ folder: String, _ storage: any Storage) throws(StoreError) {
    guard storage.fileExists(folder + "/slots") || storage.fileExists(folder + "/catalog.mdb")
    else { throw .notAStore }
    if StoreRegistry.isOpen(folder) { throw .locked(.inUse) }
    do throws(FileError) {
      var locks: [Lock] = []
      for path in [Self.path(folder), folder + "/opening.lock"] {
        let lock = Lock(try FileDescriptor.open(path, mode: .create))
        guard try lock.descriptor.tryRecordLock() else { throw FileError(.lock, errno: EAGAIN) }
        locks.append(lock)
      }
      self.locks = locks
    } catch {
      throw error.errno == EAGAIN ? .locked(.inUse) : StoreError(error, .ownerLock)
    }
    let owners = OwnerFiles(directory: folder + "/owners", storage: storage).owners()
    guard owners.living.isEmpty, !SharedMemory.isUsedByOthers(folder) else {
      throw .locked(.inUse)
    }
  }

  /// Whether another process repairs the store now.
  static func isRepaired(_ folder: String) -> Bool {
    do throws(FileError) {
      return try FileDescriptor.open(path(folder), mode: .existing).recordLockHolder() != nil
    } catch {
      return false
    }
  }
}
