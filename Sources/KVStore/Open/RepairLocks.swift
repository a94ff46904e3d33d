internal import Glibc
package import KVCore
internal import KVFile

/// Keeps everybody else out of a store while it is repaired.
///
/// `repair.lock` is what openers look at; `opening.lock` makes sure that none is in the middle of it.
package final class RepairLocks {
  private let locks: [Lock]

  private final class Lock {
    let descriptor: FileDescriptor
    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
  }

  private static let name = "repair.lock"

  /// Throws `.locked` when a process has the store open or repairs it.
  package init(_ folder: StoreFolder) throws(StoreError) {
    let names = ["slots", StoreFolder.catalogName]
    do throws(FileError) {
      var isStore = false
      for name in names where try folder.files.fileExists(name) { isStore = true }
      guard isStore else { throw FileError(.open, errno: ENOTDIR) }
    } catch {
      throw error.errno == ENOTDIR ? .notAStore : StoreError(error, .folder)
    }
    if StoreRegistry.isOpen(folder.handle.identity) { throw .locked(.inUse) }
    do throws(FileError) {
      var locks: [Lock] = []
      for name in [Self.name, "opening.lock"] {
        let lock = Lock(try FileDescriptor.open(name, in: folder.handle, mode: .create))
        guard try lock.descriptor.tryRecordLock() else { throw FileError(.lock, errno: EAGAIN) }
        locks.append(lock)
      }
      self.locks = locks
    } catch {
      throw error.errno == EAGAIN ? .locked(.inUse) : StoreError(error, .ownerLock)
    }
    let owners: (any Storage)?
    do throws(FileError) { owners = try folder.subfolder("owners") } catch {
      throw StoreError(error, .folder)
    }
    guard OwnerFiles(owners).owners().living.isEmpty, !SharedMemory.isUsedByOthers(folder) else {
      throw .locked(.inUse)
    }
  }

  /// Whether another process repairs the store now.
  static func isRepaired(_ folder: StoreFolder) -> Bool {
    do throws(FileError) {
      return try FileDescriptor.open(name, in: folder.handle, mode: .existing)
        .recordLockHolder() != nil
    } catch {
      return false
    }
  }
}
