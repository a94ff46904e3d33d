import KVCore
import KVRemote

/// A client whose questions are counted and timed.
final class CountingObjects: RemoteObjects {
  struct Counts {
    /// Rounds of questions.
    var roundCount = 0
    var firstAskedAt: UInt64 = 0
    var lastAnsweredAt: UInt64 = 0
    /// A chunk is asked for: the questions are over.
    var isFetching = false
  }

  private let objects: any RemoteObjects
  private let state = Monitor(Counts())

  init(_ objects: any RemoteObjects) { self.objects = objects }

  var counts: Counts { state.withLock { $0 } }

  func exist(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> [Bool] {
    state.withLock { state in
      state.roundCount += 1
      if state.firstAskedAt == 0 { state.firstAskedAt = monotonicNanoseconds() }
    }
    let answers = try objects.exist(names, deadline: deadline)
    state.withLock { $0.lastAnsweredAt = monotonicNanoseconds() }
    return answers
  }

  func get(
    _ names: [RemoteName],
    deadline: UInt64,
    memory: (_ index: Int, _ byteCount: Int) -> UnsafeMutableRawBufferPointer?,
    done: (_ index: Int, RemoteRead) -> Void
  ) throws(RemoteError) {
    state.withLock { if $0.lastAnsweredAt > 0 { $0.isFetching = true } }
    try unsafe objects.get(names, deadline: deadline, memory: memory, done: done)
  }

  func putIfAbsent(
    _ name: RemoteName,
    pieces: [UnsafeRawBufferPointer],
    timeToLiveMilliseconds: UInt64?,
    deadline: UInt64
  ) throws(RemoteError) -> RemoteWrite {
    try unsafe objects.putIfAbsent(
      name,
      pieces: pieces,
      timeToLiveMilliseconds: timeToLiveMilliseconds,
      deadline: deadline
    )
  }

  func extend(
    _ names: [RemoteName],
    timeToLiveMilliseconds: UInt64,
    deadline: UInt64
  ) throws(RemoteError) {
    try objects.extend(names, timeToLiveMilliseconds: timeToLiveMilliseconds, deadline: deadline)
  }

  func remove(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> Int {
    try objects.remove(names, deadline: deadline)
  }

  func list(
    prefix: RemoteName,
    after cursor: ListCursor?,
    deadline: UInt64
  ) throws(RemoteError) -> (names: [RemoteName], next: ListCursor?) {
    try objects.list(prefix: prefix, after: cursor, deadline: deadline)
  }

  func information(deadline: UInt64) throws(RemoteError) -> RemoteInformation {
    try objects.information(deadline: deadline)
  }

  func close() { objects.close() }
}
