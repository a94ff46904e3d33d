internal import Glibc
internal import KVCore
internal import KVFile

/// Held while a process opens the store, so that two do not create it at once.
///
/// Without it nobody goes on: one that was stopped halfway may go on at any time.
final class OpeningLock {
  private let descriptor: FileDescriptor

  private init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

  /// Waits for it; nil where nothing is written.
  ///
  /// Gives up after ten seconds, or three quarters of what the caller allows, who shall hear what it was.
  static func take(
    _ folder: StoreFolder,
    _ configuration: StoreConfiguration
  ) throws(StoreError) -> OpeningLock? {
    guard !configuration.readOnly else { return nil }
    let patience = min(10_000_000_000, configuration.waitTimeoutNanoseconds / 4 * 3)
    let deadline = KVCore.deadline(after: patience)
    do throws(FileError) {
      while true {
        let descriptor = try FileDescriptor.open("opening.lock", in: folder.handle, mode: .create)
        while try !descriptor.tryRecordLock() {
          guard monotonicNanoseconds() < deadline else { throw FileError(.lock, errno: EAGAIN) }
          usleep(1000)
        }
        if RepairLocks.isRepaired(folder) { throw FileError(.lock, errno: EBUSY) }
        // Somebody may have removed it meanwhile, and another process have locked a new one.
        if try descriptor.identity() == folder.handle.identity(of: "opening.lock") {
          return OpeningLock(descriptor)
        }
      }
    } catch {
      switch error.errno {
      case EAGAIN: throw .locked(.opening)
      case EBUSY: throw .locked(.repairing)
      default: throw StoreError(error, .ownerLock)
      }
    }
  }
}
