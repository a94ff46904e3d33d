internal import KVCatalog
internal import KVCore
internal import KVIndex

/// Keeps this process's index true to what other processes remove, off the match path.
///
/// A thread that looks at the catalog's transaction number, which costs no lock and no I/O, and reads the new events when it has
/// moved. What others store needs no event: a match asks the catalog for what the index does not have.
final class EventFollower: Sendable {
  private unowned let core: StoreCore
  private let progress: Monitor<Progress>
  private let thread = Monitor<ServiceThread?>(nil)

  private struct Progress {
    /// The last event that has been applied.
    var cursor: UInt64
    /// The last commit that was in view when it was read.
    var snapshotID: UInt64 = 0
    var isStopping = false
  }

  /// Others' removals are seen this much later at most, plus the time to read them (docs: 50 ms).
  static let intervalNanoseconds: UInt64 = 20_000_000
  /// What this process holds in memory is told to others so often.
  private static let publishNanoseconds: UInt64 = 1_000_000_000
  /// Readers of the catalog that were killed are looked for so often; what they keep from being used again grows slowly.
  private static let staleReadersNanoseconds: UInt64 = 10_000_000_000
  /// Events in one read transaction, and removals under one pass of the state lock.
  private static let eventCountMax = 1000
  private static let removalCountMax = 64

  /// Follows from the newest event on: an index that is empty has nothing to lose.
  init(core: StoreCore) throws(StoreError) {
    self.core = core
    let newest = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.eventSequences()?.upperBound
    }
    progress = Monitor(Progress(cursor: newest ?? 0))
  }

  func start() throws(StoreError) {
    // Unowned: `stop` joins the thread before the follower goes.
    guard let started = ServiceThread.start({ [unowned self] in run() }) else {
      throw .outOfMemory
    }
    thread.withLock { $0 = started }
  }

  func stop() {
    progress.withLock { $0.isStopping = true }
    progress.notifyAll()
    thread.withLock { $0 }?.join()
    thread.withLock { $0 = nil }
  }

  /// The last commit whose removals have been applied.
  var snapshotID: UInt64 { progress.withLock { $0.snapshotID } }

  private func run() {
    var published = monotonicNanoseconds()
    var looked = published
    while true {
      let isStopping = progress.wait(until: deadline(after: Self.intervalNanoseconds)) { progress in
        progress.isStopping ? true : nil
      }
      if isStopping == true { return }
      catchUp()
      let now = monotonicNanoseconds()
      if now &- published >= Self.publishNanoseconds {
        published = now
        core.publishMemory()
      }
      if now &- looked >= Self.staleReadersNanoseconds {
        looked = now
        // An error is every other call's as well.
        do throws(CatalogError) { try core.catalog.clearStaleReaders() } catch { continue }
      }
    }
  }

  /// Applies what others committed since the last look.
  private func catchUp() {
    let (cursor, seen) = progress.withLock { ($0.cursor, $0.snapshotID) }
    guard core.transactionID != seen else { return }
    var next = cursor
    var snapshotID = seen
    while true {
      guard let page = read(after: next) else { return }
      if page.isLapped {
        core.state.withLock { state in
          for namespace in state.namespaces.all { state.tree.removeAll(of: namespace) }
        }
        core.state.notifyAll()
      } else {
        apply(page.events.filter { $0.owner != core.owner })
      }
      next = page.cursor
      snapshotID = page.snapshotID
      if page.isAtEnd { break }
    }
    progress.withLock { [next, snapshotID] progress in
      progress.cursor = next
      progress.snapshotID = snapshotID
    }
  }

  private func read(after cursor: UInt64) -> EventPage? {
    // An error here is every other reader's error as well; the next look tries again.
    do throws(StoreError) {
      return try core.events(after: cursor, limit: Self.eventCountMax)
    } catch {
      return nil
    }
  }

  private func apply(_ events: [CatalogEvent]) {
    let ranges = events.filter { $0.kind != .stored }.map { event in
      RemovedRange(
        namespace: event.namespace,
        run: event.run,
        firstPosition: event.firstPosition,
        blockCount: event.blockCount
      )
    }
    var next = 0
    while next < ranges.count {
      let end = min(next + Self.removalCountMax, ranges.count)
      // What moved has another place now: the next match reads it from the catalog.
      core.state.withLock { state in
        for range in ranges[next..<end] { state.tree.remove(range) }
      }
      next = end
    }
    if !ranges.isEmpty { core.state.notifyAll() }
  }
}

/// Some events, and where to go on.
struct EventPage {
  var events: [CatalogEvent] = []
  /// What to ask for next.
  var cursor: UInt64
  /// Events after the cursor are gone: what the reader knows is void.
  var isLapped = false
  /// There were no more when this was read.
  var isAtEnd: Bool
  /// The last commit that was in view.
  var snapshotID: UInt64
}

extension StoreCore {
  /// The events after `cursor`, oldest first, in one short read transaction.
  ///
  /// A cursor that was lapped, or is ahead of the newest event, is set to the newest, without events.
  func events(after cursor: UInt64, limit: Int) throws(StoreError) -> EventPage {
    try catalogRead { (transaction) throws(CatalogError) in
      let id = try transaction.snapshotID()
      let kept = try transaction.eventSequences()
      guard let kept, cursor <= kept.upperBound, cursor >= kept.lowerBound &- 1 else {
        let newest = kept?.upperBound ?? 0
        return EventPage(
          cursor: newest,
          isLapped: cursor != newest,
          isAtEnd: true,
          snapshotID: id
        )
      }
      let events = try transaction.events(after: cursor, limit: limit)
      let last = events.last?.sequence ?? cursor
      return EventPage(
        events: events,
        cursor: last,
        isAtEnd: last >= kept.upperBound,
        snapshotID: id
      )
    }
  }
}
