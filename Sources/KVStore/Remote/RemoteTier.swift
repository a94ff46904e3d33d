internal import KVCore
internal import KVFile
internal import KVPolicy
internal import KVRemote

/// The tier behind disk and archive: chunks of blocks in an engine outside this machine.
///
/// What it promises, it promises to the engine's threads: they never wait for it, and whatever it does or does not is a miss. They
/// leave a note (`lookUp`, `noteStored`, `noteReuse`), and threads of its own do the rest: two that fetch, two that receive for these, one that sends. They
/// start with the first note. All that it knows of the other side are hints, kept for a while and bounded.
final class RemoteTier: Sendable {
  let configuration: RemoteConfiguration
  let objects: any RemoteObjects
  let key: RemoteKey?
  /// A leaf lock.
  let state: Monitor<RemoteState>
  let fetches = ServicePool(threadCount: 2, jobCountMax: 64)
  /// What a fetch waits for while it takes what came before.
  let arrivals = ServicePool(threadCount: 2, jobCountMax: 64)
  let sends = ServicePool(threadCount: 1, jobCountMax: 4096)
  let cancellation = Cancellation()
  /// Used by the sending thread only.
  let paths = Monitor<StoredPath?>(nil)
  let purges: RemotePurges
  /// Blocks that come have no handle that hears of them.
  let ledger = FlushLedger()

  init(
    _ configuration: RemoteConfiguration,
    _ objects: any RemoteObjects,
    _ key: RemoteKey?,
    _ purges: RemotePurges
  ) {
    self.purges = purges
    self.configuration = configuration
    self.objects = objects
    self.key = key
    state = Monitor(
      RemoteState(
        budget: Admission(.always, writeBytesPerDay: configuration.writeBytesPerDay),
        pauseNanoseconds: configuration.pauseNanoseconds
      )
    )
  }

  /// The tier of a configuration; nil when it names none.
  static func open(
    _ configuration: RemoteConfiguration,
    _ files: any Storage,
    owner: OwnerID,
    isDead: (OwnerID) -> Bool
  ) throws(StoreError) -> RemoteTier? {
    guard configuration.isConfigured else { return nil }
    let key = try RemoteClient.key(configuration)
    let objects = try RemoteClient.open(configuration)
    let tier = RemoteTier(
      configuration,
      objects,
      key,
      RemotePurges(files, owner: owner, isDead: isDead)
    )
    // What an earlier process could not purge.
    tier.purges.start(tier)
    return tier
  }

  /// Whether a match with these options may look here.
  func isAsked(by options: MatchOptions) -> Bool {
    options.contains(.remote) || configuration.matchesAlways && !options.contains(.peek)
  }

  /// Ends the threads; what was queued is dropped, what is under way ends at once or at its deadline.
  func stop(_ core: StoreCore) {
    cancellation.cancel()
    core.state.notifyAll()
    objects.close()
    purges.stop()
    // They wait for arrivals.
    fetches.stop()
    arrivals.stop()
    sends.stop()
  }

  // MARK: The other side

  /// Makes a call unless the other side is left alone, and notes how it went.
  ///
  /// - Throws: `.closed` without a call when it is left alone.
  func call<Result>(
    _ body: (any RemoteObjects) throws(RemoteError) -> Result
  ) throws(RemoteError) -> Result {
    guard !cancellation.isCancelled, state.withLock({ $0.breaker.isClosed }) else { throw .closed }
    do throws(RemoteError) {
      let result = try body(objects)
      state.withLock { $0.noteAnswer(now: monotonicNanoseconds()) }
      return result
    } catch {
      note(error)
      throw error
    }
  }

  func note(_ error: RemoteError) {
    guard !cancellation.isCancelled, error != .closed else { return }
    state.withLock { $0.note(error, now: monotonicNanoseconds()) }
  }

  var lookUpDeadline: UInt64 { KVCore.deadline(after: configuration.lookUpTimeoutNanoseconds) }
  var transferDeadline: UInt64 { KVCore.deadline(after: configuration.transferTimeoutNanoseconds) }

  /// Whether it may be asked; starts a probe when it is time for one.
  func mayAsk() -> Bool {
    let now = monotonicNanoseconds()
    let (isClosed, isProbe) = state.withLock { state in
      (state.breaker.isClosed, state.breaker.beginProbe(now: now))
    }
    if isProbe {
      let refusal = fetches.submit { [self] in
        do throws(RemoteError) {
          guard !cancellation.isCancelled else { return }
          _ = try objects.information(deadline: lookUpDeadline)
          state.withLock { $0.noteAnswer(now: monotonicNanoseconds()) }
        } catch {
          state.withLock { $0.note(error, now: monotonicNanoseconds()) }
        }
      }
      if refusal != nil { state.withLock { $0.breaker.noteFailure(now: now) } }
    }
    return isClosed
  }

  // MARK: Namespaces

  /// How a namespace is known there; nil for one that stays local.
  func namespace(_ core: NamespaceCore, keyBitCount: Int) -> RemoteNamespace? {
    if let known = state.withLock({ $0.namespace(core.id) }), known.core === core {
      return known.remote
    }
    let identity = core.identity
    let owner = core.sectionOwner.withLock { $0 }
    // Of one that a tool opened by its record the salt is not known.
    let hasUnknownSalt = identity.salt.isEmpty && NamespaceIdentity.recordHasSalt(core.record)
    let remote =
      hasUnknownSalt
      ? nil
      : RemoteNamespace(
        identity,
        key: key,
        owner: owner,
        keyBitCount: keyBitCount,
        blocksPerChunk: configuration.blocksPerChunk
      )
    // Whose sections they are may be known later.
    if remote != nil || identity.sideSection == nil {
      state.withLock { $0.add(RemoteState.Known(core: core, remote: remote)) }
    }
    return remote
  }

  /// Whether the identity record there is ours, byte by byte; who writes puts it there.
  func isSame(_ namespace: RemoteNamespace, of core: NamespaceCore, forWriting: Bool)
    throws(RemoteError) -> RemoteState.Identity
  {
    let now = monotonicNanoseconds()
    let known = state.withLock { $0.identity(of: core.id, now: now) }
    if known == .same || known == .other { return known }
    var found = try recordThere(namespace)
    if found == .absent, forWriting {
      _ = try call { (objects) throws(RemoteError) in
        try unsafe namespace.record.span.withUnsafeBytes { (bytes) throws(RemoteError) in
          try unsafe objects.putIfAbsent(
            namespace.recordName,
            pieces: [bytes],
            timeToLiveMilliseconds: nil,
            deadline: transferDeadline
          )
        }
      }
      // Another machine may have been first.
      found = try recordThere(namespace)
    }
    state.withLock { $0.noteIdentity(found, of: core.id, now: now) }
    return found
  }

  private func recordThere(_ namespace: RemoteNamespace) throws(RemoteError) -> RemoteState.Identity
  {
    let byteCountMax = namespace.record.count
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCountMax, alignment: 8)
    defer { unsafe memory.deallocate() }
    var read = RemoteRead.absent
    try call { (objects) throws(RemoteError) in
      try unsafe objects.get([namespace.recordName], deadline: lookUpDeadline) { _, byteCount in
        unsafe byteCount == byteCountMax ? memory : nil
      } done: {
        read = $1
      }
    }
    switch read {
    case .absent: return .absent
    case .skipped: return .other
    case .failed(let error):
      note(error)
      throw error
    case .whole(let byteCount):
      let isSame = unsafe byteCount == byteCountMax && memory.elementsEqual(namespace.record)
      return isSame ? .same : .other
    }
  }

  /// What is there under a name is not sound: it goes, so that a sound one can come.
  func remove(_ name: RemoteName) {
    do throws(RemoteError) {
      let count = try call { (objects) throws(RemoteError) in
        try objects.remove([name], deadline: lookUpDeadline)
      }
      state.withLock { $0.statistics.objectsRemoved += UInt64(count) }
    } catch {
      // Rights may not reach so far; who finds it next tries again.
    }
  }

  /// Waits until what was noted so far is sent or dropped; for tests.
  func waitForSends() {
    let isDone = Monitor(false)
    let refusal = sends.submit {
      isDone.withLock { $0 = true }
      isDone.notifyAll()
    }
    guard refusal == nil else { return }
    let _: Void? = isDone.wait(until: nil) { $0 ? () : nil }
  }

  // MARK: For people

  var statistics: RemoteStatistics { report.statistics }

  /// What `inspect` and `top` show of it.
  var report: RemoteReport {
    let (sendCount, lookUpCount) = (sends.unfinishedCount, fetches.unfinishedCount)
    let pendingCount = purges.pendingCount
    return state.withLock { state in
      let now = monotonicNanoseconds()
      var result = state.statistics
      result.breakerOpened = state.breaker.openCount
      result.isBreakerOpen = !state.breaker.isClosed
      result.isPaused = now < state.pausedUntil
      result.pauseCause = result.isPaused ? state.pauseCause : nil
      result.pausedUntil = result.isPaused ? state.pausedUntil : 0
      result.bytesPerSecond = UInt64(state.bandwidth.bytesPerSecond)
      result.roundNanoseconds = state.roundNanoseconds
      result.purgesPending = UInt64(pendingCount)
      result.state = state.standing.state
      result.stateSince = state.standing.since
      result.answeredAt = state.standing.answeredAt
      result.lastFailure = state.standing.lastFailure
      result.writeBytesPerDay = UInt64(configuration.writeBytesPerDay)
      result.writeBytesLeft = UInt64(state.budget.affordableByteCount(now: now) ?? 0)
      result.sendsQueued = UInt64(sendCount)
      result.lookUpsQueued = UInt64(lookUpCount)
      return RemoteReport(
        server: RemoteClient.place(configuration),
        writes: configuration.writes,
        matchesAlways: configuration.matchesAlways,
        statistics: result,
        lookUps: state.lookUps
      )
    }
  }
}

extension Store {
  /// Waits until the remote tier has sent or dropped what it was told of so far; for tests.
  package func waitForRemote() { core.remote?.waitForSends() }

  /// Whether no look-up is under way; for tests.
  package var remoteIsIdle: Bool {
    core.remote?.state.withLock { $0.fetches.values.allSatisfy { $0.endedAt != nil } } ?? true
  }
}
