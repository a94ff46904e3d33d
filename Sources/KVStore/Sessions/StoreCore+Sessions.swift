internal import KVCatalog
internal import KVCore

/// What sessions have noted and the writer has not written yet.
struct SessionLog {
  var pending: [UInt64: (row: SessionRow, steps: [SessionStepRow])] = [:]
  var lastID: UInt64 = 0
  var isWriting = false

  /// Steps that wait for the writer; when it is stuck, the rest is not recorded.
  static let pendingCountMax = 4_096
}

extension StoreCore {
  /// A session of a number that no other process gives: the time, with the owner in its low bits.
  func newSession(of namespace: NamespaceID, name: [UInt8]) -> SessionRow {
    let now = configuration.clock.realTimeNanoseconds()
    let owner = UInt64(owner.rawValue) & 0xFFFF
    let id = sessionLog.withLock { log in
      log.lastID = max(now & ~0xFFFF | owner, log.lastID + 0x1_0000)
      return log.lastID
    }
    return SessionRow(id: id, namespace: namespace, createdNanoseconds: now, name: name)
  }

  /// Hands a session's state and steps to the writer, which writes all that has gathered in one commit.
  func note(_ row: SessionRow, _ steps: [SessionStepRow]) {
    let mustQueue = sessionLog.withLock { log in
      let known = log.pending[row.id]?.steps ?? []
      guard known.count + steps.count <= SessionLog.pendingCountMax else { return false }
      log.pending[row.id] = (row, known + steps)
      defer { log.isWriting = true }
      return !log.isWriting
    }
    guard mustQueue else { return }
    writer?.enqueueUnhurried(
      WriterCall { [self] () throws(StoreError) in
        try writeSessions()
        return 0
      }
    )
  }

  /// On the writer's thread.
  ///
  /// A record that cannot be written is lost: it is for people to look at, and never in the way of blocks.
  private func writeSessions() throws(StoreError) {
    let pending = sessionLog.withLock { log in
      defer {
        log.pending = [:]
        log.isWriting = false
      }
      return log.pending
    }
    guard !pending.isEmpty else { return }
    // The catalog keeps a fifth of its map free for blocks to leave; records of sessions take none of it.
    guard let usage = catalogUsage, usage.usedByteCount < usage.mapByteCount / 10 * 9 else {
      return
    }
    let rowCountMax = WriteTransaction.sessionRowCountMax(forMap: usage.mapByteCount)
    do throws(CatalogError) {
      try catalogWrite { (transaction) throws(CatalogError) in
        for (_, noted) in pending.sorted(by: { $0.key < $1.key }) {
          try transaction.putSession(noted.row, steps: noted.steps, rowCountMax: rowCountMax)
        }
      }
    } catch {
      throw StoreError(error)
    }
    countCommit()
  }
}
