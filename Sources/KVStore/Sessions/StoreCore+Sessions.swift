internal import KVCatalog
internal import KVCore

/// What sessions have noted and the writer has not written yet.
struct SessionLog {
  struct Noted {
    var row: SessionRow
    var steps: [SessionStepRow] = []
    /// Where the session stands; a block on its way gets its position when it is published.
    var target: LeaseTable.Target?
    /// It was written, and is kept for a head that had no position then.
    var isForTarget = false
  }

  var pending: [UInt64: Noted] = [:]
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
  func note(_ row: SessionRow, _ steps: [SessionStepRow], target: LeaseTable.Target? = nil) {
    let mustQueue = sessionLog.withLock { log in
      let known = log.pending[row.id]?.steps ?? []
      guard known.count + steps.count <= SessionLog.pendingCountMax else { return false }
      log.pending[row.id] = SessionLog.Noted(row: row, steps: known + steps, target: target)
      defer { log.isWriting = true }
      return !log.isWriting
    }
    if mustQueue { queueSessions() }
  }

  private func queueSessions() {
    writer?.enqueueUnhurried(
      WriterCall { [self] () throws(StoreError) in
        try writeSessions()
        return 0
      }
    )
  }

  /// The last stored block of a prompt; no use, and no trace of it.
  func storedEnd(_ namespace: NamespaceCore, _ prompt: Prompt) throws(StoreError) -> LeaseTable
    .Target?
  {
    try withStoredPrefix(
      namespace,
      prompt,
      blockCount: namespace.blockCount(of: prompt),
      touch: false
    ) { state, prefix in
      prefix.blockCount > 0 ? state.tree.target(at: prefix.location) : nil
    }
  }

  /// On the writer's thread.
  ///
  /// A record that cannot be written is lost: it is for people to look at, and never in the way of blocks.
  private func writeSessions() throws(StoreError) {
    var pending = sessionLog.withLock { log in
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
    let published = pendingParents.published
    var waiting: [SessionLog.Noted] = []
    for (id, noted) in pending {
      switch noted.target {
      case .published(let position): pending[id]?.row.head = position
      case .pending(let ticket):
        pending[id]?.row.head = published[ticket]
        // The call was queued before the block was; it is published by the next one, or was dropped.
        if published[ticket] == nil, !noted.isForTarget { waiting.append(noted) }
      case nil: break
      }
    }
    try catalogWriter.commit { (transaction) throws(CatalogError) in
      for (_, noted) in pending.sorted(by: { $0.key < $1.key }) {
        var row = noted.row
        if row.head == nil { row.head = try transaction.session(row.id)?.head }
        try transaction.putSession(row, steps: noted.steps, rowCountMax: rowCountMax)
      }
    }
    noteAgain(waiting)
  }

  private func noteAgain(_ waiting: [SessionLog.Noted]) {
    guard !waiting.isEmpty else { return }
    let mustQueue = sessionLog.withLock { log in
      for var noted in waiting where log.pending[noted.row.id] == nil {
        noted.steps = []
        noted.isForTarget = true
        log.pending[noted.row.id] = noted
      }
      defer { log.isWriting = true }
      return !log.isWriting
    }
    if mustQueue { queueSessions() }
  }
}
