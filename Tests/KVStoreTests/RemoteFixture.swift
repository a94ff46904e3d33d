import Foundation
import KVCore
import KVRemote
import KVStore
import KVTestSupport
import Testing

/// Two machines and one remote, which is simulated: two stores that share nothing else.
final class RemoteFixture {
  let remote = SimulatedRemote()
  let stores: [StoreFixture]
  static let key = [UInt8](repeating: 9, count: 32)

  var a: StoreFixture { stores[0] }
  var b: StoreFixture { stores[1] }

  init(
    writes: RemoteWrites = .all,
    _ change: (inout StoreConfiguration, _ index: Int) -> Void = { _, _ in }
  ) throws {
    stores = try (0..<2).map { [remote] index in
      try StoreFixture { configuration in
        configuration.remote.objects = SharedRemote(remote)
        configuration.remote.blocksPerChunk = 2
        configuration.remote.writes = writes
        // A busy machine is no reason to fail.
        configuration.remote.lookUpTimeoutNanoseconds = 60_000_000_000
        configuration.remote.transferTimeoutNanoseconds = 60_000_000_000
        change(&configuration, index)
      }
    }
  }

  /// Stores a prompt's blocks on the first machine, and waits until they are where they go.
  func write(_ tokens: [UInt32], _ identity: NamespaceIdentity) throws {
    try a.store.openNamespace(identity).offload(tokens)
    try a.store.flush()
    a.store.waitForRemote()
  }

  /// The second machine's prefix of a prompt, once nothing of it is on its way.
  func find(_ tokens: [UInt32], _ identity: NamespaceIdentity) throws -> MatchResult {
    try b.store.openNamespace(identity).matchRemote(tokens)
  }

  var statistics: RemoteStatistics {
    get throws { try #require(try b.store.statistics().remote) }
  }
}

/// One machine's way to a remote that others use as well: closing it ends that only.
final class SharedRemote: RemoteObjects {
  private let remote: SimulatedRemote
  private let isClosed = Monitor(false)

  init(_ remote: SimulatedRemote) { self.remote = remote }

  func close() { isClosed.withLock { $0 = true } }

  /// Until the deadline or the close, whichever comes first.
  private func call<Result>(
    _ deadline: UInt64,
    _ body: (UInt64) throws(RemoteError) -> Result
  ) throws(RemoteError) -> Result {
    while true {
      if isClosed.withLock({ $0 }) { throw .closed }
      // Of a remote that hangs: in pieces, so that a close is seen.
      guard remote.fault == .hanging else { return try body(deadline) }
      guard monotonicNanoseconds() < deadline else { throw .timedOut }
      usleep(1000)
    }
  }

  func exist(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> [Bool] {
    try call(deadline) { (deadline) throws(RemoteError) in
      try remote.exist(names, deadline: deadline)
    }
  }

  func get(
    _ names: [RemoteName],
    deadline: UInt64,
    memory: (_ index: Int, _ byteCount: Int) -> UnsafeMutableRawBufferPointer?,
    done: (_ index: Int, RemoteRead) -> Void
  ) throws(RemoteError) {
    try call(deadline) { (deadline) throws(RemoteError) in
      try remote.get(names, deadline: deadline, memory: memory, done: done)
    }
  }

  func putIfAbsent(
    _ name: RemoteName,
    pieces: [UnsafeRawBufferPointer],
    timeToLiveMilliseconds: UInt64?,
    deadline: UInt64
  ) throws(RemoteError) -> RemoteWrite {
    try call(deadline) { (deadline) throws(RemoteError) in
      try remote.putIfAbsent(
        name,
        pieces: pieces,
        timeToLiveMilliseconds: timeToLiveMilliseconds,
        deadline: deadline
      )
    }
  }

  func extend(
    _ names: [RemoteName],
    timeToLiveMilliseconds: UInt64,
    deadline: UInt64
  ) throws(RemoteError) {
    try call(deadline) { (deadline) throws(RemoteError) in
      try remote.extend(
        names,
        timeToLiveMilliseconds: timeToLiveMilliseconds,
        deadline: deadline
      )
    }
  }

  func remove(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> Int {
    try call(deadline) { (deadline) throws(RemoteError) in
      try remote.remove(names, deadline: deadline)
    }
  }

  func list(
    prefix: RemoteName,
    after cursor: ListCursor?,
    deadline: UInt64
  ) throws(RemoteError) -> (names: [RemoteName], next: ListCursor?) {
    try call(deadline) { (deadline) throws(RemoteError) in
      try remote.list(prefix: prefix, after: cursor, deadline: deadline)
    }
  }

  func information(deadline: UInt64) throws(RemoteError) -> RemoteInformation {
    try call(deadline) { (deadline) throws(RemoteError) in
      try remote.information(deadline: deadline)
    }
  }
}

extension Namespace {
  /// Matches until nothing is on its way any more; far more than one look-up would end by then.
  func matchRemote(_ tokens: [UInt32]) throws -> MatchResult {
    for _ in 0..<60_000 {
      let result = try match(tokens, .remote)
      guard result.isBeingFetched else { return result }
      usleep(1000)
    }
    Issue.record("a fetch did not end")
    return MatchResult()
  }
}
