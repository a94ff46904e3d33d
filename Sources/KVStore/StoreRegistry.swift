internal import Glibc
internal import KVCore
internal import KVFile

/// The stores that this process has open, by device and inode: LMDB must not be opened twice in one process.
enum StoreRegistry {
  private struct Identity: Hashable {
    let device: UInt64
    let inode: UInt64
  }

  private struct Entry {
    enum Phase {
      case opening
      case open(StoreCore, count: Int)
      /// Being shut down; a new open waits for its end.
      case closing(StoreCore)
    }

    var phase = Phase.opening
  }

  /// A forked child has none open: the parent's are never released in it, since they must not be torn down there.
  private static let entries = ForkLocal<[Identity: Entry]> { [:] }

  /// Whether this process has the store in a folder open.
  static func isOpen(_ path: String) -> Bool {
    guard let identity = try? identity(of: path) else { return false }
    return entries.withLock { $0[identity] != nil }
  }

  static func open(_ configuration: StoreConfiguration) throws(StoreError) -> StoreCore {
    let deadline = KVCore.deadline(after: configuration.waitTimeoutNanoseconds)
    let identity = try prepare(configuration, deadline)
    enum Step {
      case share(StoreCore)
      case create
    }
    let step: Step? = entries.monitor.wait(until: deadline) { entries in
      if let entry = entries[identity] {
        guard case .open(let core, let count) = entry.phase else { return nil }
        entries[identity]?.phase = .open(core, count: count + 1)
        return .share(core)
      }
      entries[identity] = Entry()
      return .create
    }
    switch step {
    case .share(let core): return core
    case .create: return try create(configuration, identity, deadline)
    // Another thread's open or close waits for another process.
    case nil: throw .locked(.writerStalled)
    }
  }

  /// Makes the folder; a disk that hangs keeps nobody waiting for ever.
  private static func prepare(
    _ configuration: StoreConfiguration,
    _ deadline: UInt64
  ) throws(StoreError) -> Identity {
    do throws(StoreError) {
      return try BoundedCall.run(until: deadline) { () throws(StoreError) in
        try StoreCore.prepareFolder(configuration)
        return try identity(of: configuration.path)
      }
    } catch {
      throw error == .busy ? .locked(.writerStalled) : error
    }
  }

  private static func create(
    _ configuration: StoreConfiguration,
    _ identity: Identity,
    _ deadline: UInt64
  ) throws(StoreError) -> StoreCore {
    do throws(StoreError) {
      return try BoundedCall.run(
        until: deadline,
        dispose: { core in
          // Another thread may share it by now. Errors have nobody to go to.
          do throws(StoreError) { try close(core, FlushLedger()) } catch { return }
        },
        { () throws(StoreError) in
          do throws(StoreError) {
            let core = try StoreCore(configuration)
            change(identity, to: .open(core, count: 1))
            return core
          } catch {
            change(identity, to: nil)
            throw error
          }
        }
      )
    } catch {
      throw error == .busy ? .locked(.writerStalled) : error
    }
  }

  private static func change(_ identity: Identity, to phase: Entry.Phase?) {
    entries.withLock { entries in
      if let phase { entries[identity]?.phase = phase } else { entries[identity] = nil }
    }
    entries.monitor.notifyAll()
  }

  /// Flushes, and shuts down when this was the last handle; throws what kept blocks of this one from being written.
  static func close(_ core: StoreCore, _ ledger: FlushLedger) throws(StoreError) {
    var failure: StoreError?
    do throws(StoreError) {
      failure = try core.flush(ledger, timeoutNanoseconds: 0).error
    } catch {
      failure = error
    }
    let last: Identity? = try entries.withLock { (entries) throws(StoreError) in
      for (identity, entry) in entries {
        guard case .open(let other, let count) = entry.phase, other === core else { continue }
        if count > 1 {
          entries[identity]?.phase = .open(core, count: count - 1)
          return nil
        }
        entries[identity]?.phase = .closing(core)
        return identity
      }
      throw .closed
    }
    if let last {
      core.shutDown()
      change(last, to: nil)
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
