import KVCore
package import KVRemote
import Synchronization

/// Named objects in memory, in place of a server: what a remote does at its best, and at its worst.
///
/// Faults are set between calls or during them; each call meets those that are set when it begins.
package final class SimulatedRemote: RemoteObjects {
  /// What goes wrong.
  package enum Fault: Sendable, Equatable {
    /// Answers after so many nanoseconds, or not within the deadline.
    case late(UInt64)
    /// No answer until the deadline.
    case hanging
    /// Refuses connections.
    case dead
    /// Objects come without their last bytes.
    case cut(Int)
    /// One bit of an object is another.
    case flipped(bit: Int)
    /// Says that objects exist which do not, and denies those that do.
    case lying
    /// Takes nothing more.
    case full
    /// Rights were revoked.
    case unauthorized
    /// Loading, failing over.
    case unavailable
    /// Loses each written object and says that it has it.
    case forgetting
  }

  private struct Object {
    var bytes: [UInt8]
    /// Of `monotonicNanoseconds()`.
    var endsAt: UInt64?
  }

  private struct State {
    var objects: [RemoteName: Object] = [:]
    var fault: Fault?
    /// Calls by kind.
    var counts = Counts()
    var isClosed = false
    var refusesRemovals = false

    mutating func dropEnded() {
      let now = monotonicNanoseconds()
      objects = objects.filter { $0.value.endsAt.map { $0 > now } ?? true }
    }
  }

  /// What was asked, in calls.
  package struct Counts: Sendable, Equatable {
    package var exist = 0
    package var get = 0
    package var put = 0
    package var extend = 0
    package var remove = 0
    package var list = 0
    package var information = 0
    package var all: Int { exist + get + put + extend + remove + list + information }
  }

  private let state = Mutex(State())

  package init() {}

  // MARK: For tests

  package var fault: Fault? {
    get { state.withLock { $0.fault } }
    set { state.withLock { $0.fault = newValue } }
  }

  /// Whoever asks may read and write, and remove nothing.
  package var refusesRemovals: Bool {
    get { state.withLock { $0.refusesRemovals } }
    set { state.withLock { $0.refusesRemovals = newValue } }
  }

  package var counts: Counts { state.withLock { $0.counts } }

  /// A restart of the client: what was closed can be used again.
  package func reopen() { state.withLock { $0.isClosed = false } }

  /// Whole objects by their names.
  package var objects: [RemoteName: [UInt8]] {
    get { state.withLock { $0.objects.mapValues(\.bytes) } }
    set { state.withLock { $0.objects = newValue.mapValues { Object(bytes: $0, endsAt: nil) } } }
  }

  /// Nanoseconds that an object has left; nil for one without an end, and for none.
  package func timeLeft(_ name: RemoteName) -> UInt64? {
    let end = state.withLock { $0.objects[name]?.endsAt }
    return end.map { $0 - min($0, monotonicNanoseconds()) }
  }

  /// Changes bytes of an object that is there.
  package func change(_ name: RemoteName, _ body: (inout [UInt8]) -> Void) {
    state.withLock { state in
      guard var object = state.objects[name] else { return }
      body(&object.bytes)
      state.objects[name] = object
    }
  }

  // MARK: RemoteObjects

  package func exist(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> [Bool] {
    let fault = try begin(\.exist, deadline)
    return state.withLock { state in
      state.dropEnded()
      return names.map { (state.objects[$0] != nil) != (fault == .lying) }
    }
  }

  package func get(
    _ names: [RemoteName],
    deadline: UInt64,
    memory: (_ index: Int, _ byteCount: Int) -> UnsafeMutableRawBufferPointer?,
    done: (_ index: Int, RemoteRead) -> Void
  ) throws(RemoteError) {
    let fault: Fault?
    do throws(RemoteError) {
      fault = try begin(\.get, deadline)
    } catch {
      for index in names.indices { done(index, .failed(error)) }
      throw error
    }
    for (index, name) in names.enumerated() {
      let found = state.withLock { state in
        state.dropEnded()
        return state.objects[name]?.bytes
      }
      guard var bytes = found else {
        done(index, .absent)
        continue
      }
      switch fault {
      case .cut(let count): bytes.removeLast(min(count, bytes.count))
      case .flipped(let bit) where !bytes.isEmpty:
        bytes[bit / 8 % bytes.count] ^= 1 << UInt8(bit % 8)
      default: break
      }
      guard let target = unsafe memory(index, bytes.count) else {
        done(index, .skipped)
        continue
      }
      unsafe target.copyBytes(from: bytes)
      done(index, .whole(byteCount: bytes.count))
    }
  }

  package func putIfAbsent(
    _ name: RemoteName,
    pieces: [UnsafeRawBufferPointer],
    timeToLiveMilliseconds: UInt64?,
    deadline: UInt64
  ) throws(RemoteError) -> RemoteWrite {
    let fault = try begin(\.put, deadline)
    if fault == .full { throw .full }
    var bytes: [UInt8] = []
    for piece in unsafe pieces { unsafe bytes.append(contentsOf: piece) }
    let object = Object(
      bytes: bytes,
      endsAt: timeToLiveMilliseconds.map { KVCore.deadline(after: $0 * 1_000_000) }
    )
    return state.withLock { state in
      state.dropEnded()
      guard state.objects[name] == nil else { return .existed }
      if fault != .forgetting { state.objects[name] = object }
      return .stored
    }
  }

  package func extend(
    _ names: [RemoteName],
    timeToLiveMilliseconds: UInt64,
    deadline: UInt64
  ) throws(RemoteError) {
    _ = try begin(\.extend, deadline)
    let end = KVCore.deadline(after: timeToLiveMilliseconds * 1_000_000)
    state.withLock { state in
      for name in names {
        if let now = state.objects[name]?.endsAt { state.objects[name]?.endsAt = max(now, end) }
      }
    }
  }

  package func remove(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> Int {
    _ = try begin(\.remove, deadline)
    if state.withLock({ $0.refusesRemovals }) { throw .unauthorized }
    return state.withLock { state in names.count { state.objects.removeValue(forKey: $0) != nil } }
  }

  package func list(
    prefix: RemoteName,
    after cursor: ListCursor?,
    deadline: UInt64
  ) throws(RemoteError) -> (names: [RemoteName], next: ListCursor?) {
    _ = try begin(\.list, deadline)
    // Few to a page, so that there are several.
    let sorted = state.withLock { state in
      state.objects.keys.filter { $0.text.hasPrefix(prefix.text) && $0.text > (cursor?.text ?? "") }
        .sorted { $0.text < $1.text }
    }
    let page = Array(sorted.prefix(5))
    return (page, sorted.count > page.count ? page.last.map { ListCursor($0.text) } : nil)
  }

  package func information(deadline: UInt64) throws(RemoteError) -> RemoteInformation {
    _ = try begin(\.information, deadline)
    var information = RemoteInformation()
    information.version = "simulated"
    return information
  }

  package func close() { state.withLock { $0.isClosed = true } }

  /// Counts a call, and lets it fail as it should.
  private func begin(
    _ count: WritableKeyPath<Counts, Int>,
    _ deadline: UInt64
  ) throws(RemoteError) -> Fault? {
    let (fault, isClosed) = state.withLock { state in
      state.counts[keyPath: count] += 1
      return (state.fault, state.isClosed)
    }
    if isClosed { throw .closed }
    switch fault {
    case .late(let nanoseconds):
      let end = KVCore.deadline(after: nanoseconds)
      sleep(until: min(end, deadline))
      if deadline <= end { throw .timedOut }
    case .hanging:
      sleep(until: deadline)
      throw .timedOut
    case .dead: throw .unreachable(errno: 111)
    case .unauthorized: throw .unauthorized
    case .unavailable: throw .unavailable
    default: break
    }
    return fault
  }

  /// Until a moment, or until it is closed.
  private func sleep(until end: UInt64) {
    while monotonicNanoseconds() < end, !state.withLock({ $0.isClosed }) {
      let next = min(end, KVCore.deadline(after: 2_000_000))
      let _: Void? = Monitor(()).wait(until: next) { _ in nil }
    }
  }
}
