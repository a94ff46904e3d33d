internal import Glibc
internal import KVCore
internal import KVFile

/// Tells all processes which namespaces somebody may write to: those are not removed, although they may hold nothing.
///
/// A namespace is held by a shared lock on a byte of `catalog.mdb` far behind its end, which nothing is ever written to; who removes it
/// takes the byte alone until that is committed. The kernel ends the locks of a process that dies. Thread-safe.
final class NamespaceHolds: Sendable {
  /// What this process holds, and what it takes alone: as two open files, so that the second sees the first.
  private let held: Holder
  /// nil in a process that only reads.
  private let seized: Holder?
  /// By number, how often; a leaf lock.
  private let counts = Monitor<[NamespaceID: Int]>([:])

  private final class Holder: Sendable {
    let file: FileDescriptor
    init(_ file: consuming FileDescriptor) { self.file = file }
  }

  /// The byte of namespace 0.
  private static let start: UInt64 = 1 << 62

  /// nil on a file system without such locks: then nobody removes a namespace.
  ///
  /// Whoever cannot hold what it uses does not open the store.
  static func open(
    _ folder: StoreFolder,
    isReadOnly: Bool
  ) throws(FileError) -> NamespaceHolds? {
    func file(_ mode: OpenMode) throws(FileError) -> Holder {
      Holder(try FileDescriptor.open(StoreFolder.catalogName, in: folder.handle, mode: mode))
    }
    let held = try file(.readOnly)
    // No namespace has number 0: its byte tells whether there are such locks.
    do throws(FileError) {
      _ = try held.file.tryDescriptionLock(at: start, isExclusive: false)
    } catch {
      guard [EINVAL, ENOSYS, EOPNOTSUPP].contains(error.errno) else { throw error }
      return nil
    }
    return NamespaceHolds(held, isReadOnly ? nil : try file(.existing))
  }

  private init(_ held: Holder, _ seized: Holder?) {
    self.held = held
    self.seized = seized
  }

  private static func byte(_ namespace: NamespaceID) -> UInt64 {
    start + UInt64(namespace.rawValue)
  }

  /// Holds a namespace once more; false while somebody removes it, or when the kernel has no lock to give.
  func hold(_ namespace: NamespaceID) -> Bool {
    counts.withLock { counts in
      let count = counts[namespace] ?? 0
      if count == 0 {
        let isHeld = try? held.file.tryDescriptionLock(at: Self.byte(namespace), isExclusive: false)
        guard isHeld == true else { return false }
      }
      counts[namespace] = count + 1
      return true
    }
  }

  /// Ends one `hold`.
  func release(_ namespace: NamespaceID) {
    counts.withLock { counts in
      guard let count = counts[namespace] else { return }
      counts[namespace] = count > 1 ? count - 1 : nil
      if count == 1 { held.file.endDescriptionLocks(at: Self.byte(namespace), count: 1) }
    }
  }

  /// Keeps everybody from holding a namespace; false when somebody does, in this process or another.
  func seize(_ namespace: NamespaceID) -> Bool {
    (try? seized?.file.tryDescriptionLock(at: Self.byte(namespace), isExclusive: true)) == true
  }

  /// Ends `seize`.
  func letGo(_ namespaces: some Sequence<NamespaceID>) {
    for namespace in namespaces {
      seized?.file.endDescriptionLocks(at: Self.byte(namespace), count: 1)
    }
  }

  /// Holds nothing any more, whatever handles there still are.
  func close() {
    counts.withLock { counts in
      counts = [:]
      held.file.endDescriptionLocks(at: Self.start, count: 0)
    }
  }
}
