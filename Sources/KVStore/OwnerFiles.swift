internal import Glibc
internal import KVCore
internal import KVFile

/// One file for each process that has the store open, held by a POSIX record lock.
///
/// The lock dies with the process and is not inherited by a child, so it tells the living from the dead without a
/// process number that may be reused. The file names the PID namespace, since LMDB cannot be shared across them.
final class OwnerFiles: Sendable {
  private let directory: String
  private let storage: any Storage
  private let own = Monitor<OwnFile?>(nil)

  private final class OwnFile: Sendable {
    let path: String
    let descriptor: FileDescriptor
    init(path: String, descriptor: consuming FileDescriptor) {
      self.path = path
      self.descriptor = descriptor
    }
  }

  init(directory: String, storage: any Storage) {
    self.directory = directory
    self.storage = storage
  }

  /// Throws when a living process of another PID namespace has the store open.
  ///
  /// Removes nothing.
  func checkPIDNamespace() throws(StoreError) {
    let names: [String]
    do throws(FileError) { names = try storage.list(directory) } catch { return }
    let ours = Self.pidNamespace()
    for name in names where name.hasSuffix(".lock") {
      let path = directory + "/" + name
      guard isLocked(path), let theirs = Self.contents(path), !theirs.isEmpty, theirs != ours else {
        continue
      }
      throw .locked(.otherPIDNamespace)
    }
  }

  /// Makes and locks this process's file.
  func claim(_ owner: OwnerID) throws(StoreError) {
    let path = path(of: owner)
    do throws(FileError) {
      let descriptor = try FileDescriptor.open(path, mode: .create)
      guard try descriptor.tryRecordLock() else { throw FileError(.lock, errno: EAGAIN) }
      let text = Self.pidNamespace()
      let written = unsafe text.withCString {
        unsafe Glibc.write(descriptor.rawValue, $0, strlen($0))
      }
      guard written == text.utf8.count else { throw FileError(.write, errno: EIO) }
      let file = OwnFile(path: path, descriptor: descriptor)
      own.withLock { $0 = file }
    } catch {
      throw StoreError(error, .ownerLock)
    }
  }

  /// Gives the file up; at close.
  func release() {
    guard
      let file = own.withLock({ file in
        defer { file = nil }
        return file
      })
    else { return }
    // The lock goes with the descriptor; removed first, so that nobody finds it unlocked.
    do throws(FileError) { try storage.remove(file.path) } catch { return }
  }

  /// Processes that have the store open for writing, this one included.
  func livingCount() -> Int {
    let names: [String]
    do throws(FileError) { names = try storage.list(directory) } catch { return 0 }
    let ownPath = own.withLock { $0?.path }
    return names.filter { name in
      let path = directory + "/" + name
      return name.hasSuffix(".lock") && (path == ownPath || isLocked(path))
    }.count
  }

  /// The owners that have a file here: those that live, this process among them, and those that have ended.
  ///
  /// Removes nothing.
  func owners() -> (living: Set<OwnerID>, dead: Set<OwnerID>) {
    let names: [String]
    do throws(FileError) { names = try storage.list(directory) } catch { return ([], []) }
    let ownPath = own.withLock { $0?.path }
    var (living, dead): (Set<OwnerID>, Set<OwnerID>) = ([], [])
    for name in names where name.hasSuffix(".lock") {
      guard let number = UInt32(name.dropLast(5), radix: 16) else { continue }
      let path = directory + "/" + name
      let owner = OwnerID(rawValue: number)
      if path == ownPath || isLocked(path) { living.insert(owner) } else { dead.insert(owner) }
    }
    return (living, dead)
  }

  /// Whether the process of this number has ended.
  ///
  /// In doubt it lives.
  func isDead(_ owner: OwnerID) -> Bool {
    let path = path(of: owner)
    guard storage.fileExists(path) else { return true }
    guard !isLocked(path) else { return false }
    do throws(FileError) { try storage.remove(path) } catch { return true }
    return true
  }

  /// Removes the files of processes that have ended.
  func removeDead() {
    let names: [String]
    do throws(FileError) { names = try storage.list(directory) } catch { return }
    for name in names where name.hasSuffix(".lock") {
      guard let number = UInt32(name.dropLast(5), radix: 16) else { continue }
      let owner = OwnerID(rawValue: number)
      // Our own is locked by us, which nobody but another process can tell.
      if own.withLock({ $0?.path }) != path(of: owner) { _ = isDead(owner) }
    }
  }

  /// Whether it is this process.
  func isOwn(_ owner: OwnerID) -> Bool { own.withLock { $0?.path } == path(of: owner) }

  /// The process that holds another owner's lock; nil when it has ended.
  func holder(of owner: OwnerID) -> Int32? {
    do throws(FileError) {
      return try FileDescriptor.open(path(of: owner), mode: .existing).recordLockHolder()
    } catch {
      return nil
    }
  }

  private func path(of owner: OwnerID) -> String {
    directory + "/" + hexadecimalText(UInt64(owner.rawValue), digitCount: 8) + ".lock"
  }

  private func isLocked(_ path: String) -> Bool {
    do throws(FileError) {
      // Opening and closing another's file does not touch its lock; our own is never opened twice.
      return try FileDescriptor.open(path, mode: .existing).recordLockHolder() != nil
    } catch {
      return !error.isNotFound
    }
  }

  private static func pidNamespace() -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    let count = unsafe readlink("/proc/self/ns/pid", &buffer, 255)
    guard count > 0 else { return "" }
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  private static func contents(_ path: String) -> String? {
    do throws(FileError) {
      let descriptor = try FileDescriptor.open(path, mode: .readOnly)
      var buffer = [UInt8](repeating: 0, count: 256)
      let count = unsafe Glibc.read(descriptor.rawValue, &buffer, 256)
      return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
    } catch {
      return nil
    }
  }
}
