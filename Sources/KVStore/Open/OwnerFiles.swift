internal import Glibc
package import KVCore
package import KVFile

/// One file for each process that has the store open, held by a POSIX record lock.
///
/// The lock dies with the process and is not inherited by a child, so it tells the living from the dead without a
/// process number that may be reused. The file names the PID namespace, since LMDB cannot be shared across them; where there is no
/// /proc to tell it, the process's number, which must be the one that the kernel says of the lock's holder.
package final class OwnerFiles: Sendable {
  /// nil: a read-only store without.
  private let folder: (any Storage)?
  private let own = Monitor<OwnFile?>(nil)

  private final class OwnFile: Sendable {
    let name: String
    let descriptor: FileDescriptor
    init(name: String, descriptor: consuming FileDescriptor) {
      self.name = name
      self.descriptor = descriptor
    }
  }

  package init(_ folder: (any Storage)?) { self.folder = folder }

  private func names() -> [String] {
    let names = try? folder?.list(".")
    return (names ?? []).filter { $0.hasSuffix(".lock") }
  }

  /// Throws when a living process of another PID namespace, or another copy of the library in this process, has the store open.
  ///
  /// Removes nothing.
  ///
  /// - Returns: how many living processes have it open for writing.
  func checkOthers() throws(StoreError) -> Int {
    let names = names()
    try checkProcess(names)
    let ours = Self.pidNamespace()
    var livingCount = 0
    for name in names {
      // Who removes the file of one that has ended holds its lock for a moment.
      for attempt in 0..<20 {
        guard isLocked(name) else { break }
        guard let theirs = contents(name), !theirs.isEmpty, !isHere(name, theirs, ours) else {
          livingCount += 1
          break
        }
        guard attempt < 19 else {
          throw .locked(
            !ours.isEmpty && theirs == ours ? .otherSharedMemory : .otherPIDNamespace
          )
        }
        usleep(1000)
      }
    }
    return livingCount
  }

  /// Throws when another copy of this library in this process has the store open.
  ///
  /// LMDB must not be opened twice, and to look at an owner's file would end its lock: POSIX record locks are the process's. This copy
  /// has the store not open (`StoreRegistry`).
  private func checkProcess(_ names: [String]) throws(StoreError) {
    let files = (names + ["place"]).compactMap { folder?.folder?.identity(of: $0) }
    if FileDescriptor.processLocks(files) { throw .locked(.otherCopy) }
  }

  /// Whether the living owner of a file is in this process's PID namespace.
  private func isHere(_ name: String, _ theirs: String, _ ours: String) -> Bool {
    if !ours.isEmpty, theirs == ours + Self.inMemory { return true }
    // Of another namespace's process the kernel says another number here, or none.
    guard let processID = lockHolder(name), processID > 0 else { return false }
    return theirs == Self.number(processID) + Self.inMemory
  }

  /// Makes and locks this process's file.
  func claim(_ owner: OwnerID) throws(StoreError) {
    let name = name(of: owner)
    do throws(FileError) {
      let descriptor = try openLocked(name)
      let namespace = Self.pidNamespace()
      let text = (namespace.isEmpty ? Self.number(getpid()) : namespace) + Self.inMemory
      let written = unsafe text.withCString {
        unsafe Glibc.write(descriptor.rawValue, $0, strlen($0))
      }
      guard written == text.utf8.count else {
        throw FileError(.write, errno: written < 0 ? errno : ENOSPC)
      }
      let file = OwnFile(name: name, descriptor: descriptor)
      own.withLock { $0 = file }
    } catch {
      throw StoreError(error, .ownerLock)
    }
  }

  /// The file under this name, locked.
  ///
  /// Between its making and its locking another process may take it for that of a process that has ended, and remove it.
  private func openLocked(_ name: String) throws(FileError) -> FileDescriptor {
    let deadline = deadline(after: 10_000_000_000)
    while true {
      let descriptor = try FileDescriptor.open(name, in: folder?.folder, mode: .create)
      if try descriptor.tryRecordLock() {
        if try isNamed(descriptor, name) { return descriptor }
      } else {
        guard monotonicNanoseconds() < deadline else { throw FileError(.lock, errno: EAGAIN) }
        usleep(1000)
      }
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
    do throws(FileError) { try folder?.remove(file.name) } catch { return }
  }

  /// Whether the name is this very file's now.
  private func isNamed(_ descriptor: borrowing FileDescriptor, _ name: String) throws(FileError)
    -> Bool
  {
    try descriptor.identity() == folder?.folder?.identity(of: name)
  }

  /// Processes that have a store open for writing.
  static func livingCount(_ folder: StoreFolder) -> Int {
    OwnerFiles((try? folder.subfolder("owners")) ?? nil).livingCount()
  }

  /// Processes that have the store open for writing, this one included.
  package func livingCount() -> Int {
    let ownName = own.withLock { $0?.name }
    return names().filter { $0 == ownName || isLocked($0) }.count
  }

  /// The owners that have a file here: those that live, this process among them, and those that have ended.
  ///
  /// Removes nothing.
  package func owners() -> (living: Set<OwnerID>, dead: Set<OwnerID>) {
    let ownName = own.withLock { $0?.name }
    var (living, dead): (Set<OwnerID>, Set<OwnerID>) = ([], [])
    for name in names() {
      guard let number = UInt32(name.dropLast(5), radix: 16) else { continue }
      let owner = OwnerID(rawValue: number)
      if name == ownName || isLocked(name) { living.insert(owner) } else { dead.insert(owner) }
    }
    return (living, dead)
  }

  /// Whether the process of this number has ended; then its file is removed.
  ///
  /// In doubt it lives. The file is removed under its lock: what is locked by us cannot be locked by its owner meanwhile, and what
  /// is not under this name any more is not removed.
  func isDead(_ owner: OwnerID) -> Bool {
    if isOwn(owner) { return false }
    let name = name(of: owner)
    do throws(FileError) {
      let descriptor = try FileDescriptor.open(name, in: folder?.folder, mode: .existing)
      guard try descriptor.tryDescriptionLock() else { return false }
      if try isNamed(descriptor, name) { try folder?.remove(name) }
      return true
    } catch {
      return error.operation == .remove || error.isNotFound
    }
  }

  /// Removes the files of processes that have ended.
  func removeDead() {
    for name in names() {
      guard let number = UInt32(name.dropLast(5), radix: 16) else { continue }
      let owner = OwnerID(rawValue: number)
      // Our own is locked by us, which nobody but another process can tell.
      if own.withLock({ $0?.name }) != name { _ = isDead(owner) }
    }
  }

  /// Whether it is this process.
  func isOwn(_ owner: OwnerID) -> Bool { own.withLock { $0?.name } == name(of: owner) }

  /// The process that holds another owner's lock; nil when it has ended.
  func holder(of owner: OwnerID) -> Int32? {
    lockHolder(name(of: owner))
  }

  /// Less than 0 for one that has no number here.
  private func lockHolder(_ name: String) -> Int32? {
    do throws(FileError) {
      return try FileDescriptor.open(name, in: folder?.folder, mode: .existing).recordLockHolder()
    } catch {
      return nil
    }
  }

  private func name(of owner: OwnerID) -> String {
    hexadecimalText(UInt64(owner.rawValue), digitCount: 8) + ".lock"
  }

  private func isLocked(_ name: String) -> Bool {
    do throws(FileError) {
      // Opening and closing another's file does not touch its lock; our own is never opened twice.
      return try FileDescriptor.open(name, in: folder?.folder, mode: .existing)
        .recordLockHolder() != nil
    } catch {
      return !error.isNotFound
    }
  }

  /// Says that the process shares memory as `SharedMemory` has it; those from before it had it in the store's folder, and the two
  /// must not be in one store: each takes the other's text for that of another PID namespace.
  private static let inMemory = " memory"

  private static func number(_ processID: Int32) -> String { "process \(processID)" }

  /// Empty where there is no /proc.
  static func pidNamespace() -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    let count = unsafe readlink("/proc/self/ns/pid", &buffer, 255)
    guard count > 0 else { return "" }
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  private func contents(_ name: String) -> String? {
    do throws(FileError) {
      let descriptor = try FileDescriptor.open(name, in: folder?.folder, mode: .readOnly)
      var buffer = [UInt8](repeating: 0, count: 256)
      let count = unsafe Glibc.read(descriptor.rawValue, &buffer, 256)
      return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
    } catch {
      return nil
    }
  }
}
