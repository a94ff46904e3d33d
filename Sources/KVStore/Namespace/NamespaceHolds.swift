internal import KVCore
internal import KVFile

/// Tells all processes which namespaces somebody may write to: those are not removed, although they may hold nothing.
///
/// A namespace is held by a shared lock on a byte of `catalog.mdb` far behind its end, which nothing is ever written to; who removes it
/// takes the byte alone until that is committed. The kernel ends the locks of a process that dies. Thread-safe.
final class NamespaceHolds: Sendable {
  /// What this process holds, and what it takes alone: as two open files, so that the second sees the first.
  private let held: FileDescriptor
  private let seized: FileDescriptor
  /// By number, how often; a leaf lock.
  private let counts = Monitor<[NamespaceID: Int]>([:])

  /// The byte of namespace 0.
  private static let start: UInt64 = 1 << 62

  /// nil on a file system without such locks: then no namespace is removed.
  init?(_ folder: StoreFolder) {
    guard
      let held = try? FileDescriptor.open(
        StoreFolder.catalogName,
        in: folder.handle,
        mode: .existing
      ),
      let seized = try? FileDescriptor.open(
        StoreFolder.catalogName,
        in: folder.handle,
        mode: .existing
      ),
      // Byte 0 is nobody's: it tells whether the file system has such locks.
      (try? held.tryDescriptionLock(at: Self.start, isExclusive: false)) == true
    else { return nil }
    self.held = held
    self.seized = seized
  }

  private static func byte(_ namespace: NamespaceID) -> UInt64 {
    start + UInt64(namespace.rawValue)
  }

  /// Holds a namespace once more; false while somebody removes it.
  func hold(_ namespace: NamespaceID) -> Bool {
    counts.withLock { counts in
      let count = counts[namespace] ?? 0
      if count == 0 {
        let isHeld = try? held.tryDescriptionLock(at: Self.byte(namespace), isExclusive: false)
        // An error is no removal: whoever meets it cannot take the byte alone either.
        if isHeld == false { return false }
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
      if count == 1 { held.endDescriptionLocks(at: Self.byte(namespace), count: 1) }
    }
  }

  /// Keeps everybody from holding a namespace; false when somebody does, in this process or another.
  func seize(_ namespace: NamespaceID) -> Bool {
    (try? seized.tryDescriptionLock(at: Self.byte(namespace), isExclusive: true)) == true
  }

  /// Ends `seize`.
  func letGo(_ namespaces: some Sequence<NamespaceID>) {
    for namespace in namespaces {
      seized.endDescriptionLocks(at: Self.byte(namespace), count: 1)
    }
  }

  /// Holds nothing any more, whatever handles there still are.
  func close() {
    counts.withLock { counts in
      counts = [:]
      held.endDescriptionLocks(at: Self.start, count: 0)
    }
  }
}
