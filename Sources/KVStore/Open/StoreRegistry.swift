internal import Glibc
internal import KVCore
internal import KVFile

/// The stores that this process has open, by device and inode: LMDB must not be opened twice in one process.
enum StoreRegistry {
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
  private static let entries = ForkLocal<[FileIdentity: Entry]> { [:] }

  /// Whether this process has the store in a folder open.
  static func isOpen(_ folder: FileIdentity) -> Bool {
    entries.withLock { $0[folder] != nil }
  }

  static func open(_ configuration: StoreConfiguration) throws(StoreError) -> StoreCore {
    let deadline = KVCore.deadline(after: configuration.waitTimeoutNanoseconds)
    let folder = try prepare(configuration, deadline)
    let identity = folder.handle.identity
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
    case .create: return try create(configuration, folder, deadline)
    // Another thread's open or close waits for another process.
    case nil: throw .locked(.writerStalled)
    }
  }

  /// Makes the folder; a disk that hangs keeps nobody waiting for ever.
  private static func prepare(
    _ configuration: StoreConfiguration,
    _ deadline: UInt64
  ) throws(StoreError) -> StoreFolder {
    do throws(StoreError) {
      return try BoundedCall.run(until: deadline) { () throws(StoreError) in
        try NewStore.prepareFolder(configuration)
      }
    } catch {
      throw error == .busy ? .locked(.writerStalled) : error
    }
  }

  private static func create(
    _ configuration: StoreConfiguration,
    _ folder: StoreFolder,
    _ deadline: UInt64
  ) throws(StoreError) -> StoreCore {
    let identity = folder.handle.identity
    do throws(StoreError) {
      return try BoundedCall.run(
        until: deadline,
        dispose: { core in
          // Another thread may share it by now. Errors have nobody to go to.
          do throws(StoreError) { try close(core, FlushLedger()) } catch { return }
        },
        { () throws(StoreError) in
          do throws(StoreError) {
            let core = try StoreCore(configuration, folder)
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

  private static func change(_ identity: FileIdentity, to phase: Entry.Phase?) {
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
    let last: FileIdentity? = try entries.withLock { (entries) throws(StoreError) in
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
}
