import Glibc
import KVCore
import KVRedis

/// A relay on a port of its own that lets every byte come later, in both directions, and loses none.
///
/// Two threads for each direction of a connection: what is received waits with its time, and is sent when it is due. So the delay
/// does not bound how much is on its way.
final class DelayRelay: Sendable {
  private struct Piece {
    var dueAt: UInt64
    var bytes: [UInt8]
  }

  private struct Queue {
    var pieces: [Piece] = []
    var byteCount = 0
    var isEnded = false
  }

  private struct State {
    var sockets: [Int32] = []
    var threads: [ServiceThread] = []
    var isClosed = false
  }

  private let target: RedisConfiguration.Endpoint
  private let listener: LoopbackListener
  private let delayNanoseconds: UInt64
  private let state = Monitor(State())

  /// On the way at most, each direction: more than a second of what loopback moves.
  private static let byteCountMax = 512 << 20

  var url: String { "redis://127.0.0.1:\(listener.port)" }

  /// Leads to a target, with half of the round trip each way.
  init(_ target: RedisConfiguration.Endpoint, roundTripMilliseconds: Double) throws {
    self.target = target
    delayNanoseconds = UInt64(roundTripMilliseconds * 500_000)
    guard let listener = LoopbackListener() else {
      throw CommandFailure("there is no free port: \(errorText(errno))")
    }
    self.listener = listener
    try start { $0.accept() }
  }

  /// Ends its connections and threads.
  func close() {
    let sockets = state.withLock { state in
      state.isClosed = true
      return state.sockets
    }
    for socket in sockets + [listener.number] { shutdown(socket, Int32(SHUT_RDWR)) }
    while true {
      let threads = state.withLock { state in
        defer { state.threads = [] }
        return state.threads
      }
      if threads.isEmpty { break }
      for thread in threads { thread.join() }
    }
    for socket in state.withLock({ $0.sockets }) { Glibc.close(socket) }
  }

  private func start(_ body: @escaping @Sendable (DelayRelay) -> Void) throws {
    // `close` joins it.
    guard let thread = ServiceThread.start({ [unowned self] in body(self) }) else {
      throw CommandFailure("the system gives no more threads")
    }
    state.withLock { $0.threads.append(thread) }
  }

  private func accept() {
    while true {
      let client = Glibc.accept(listener.number, nil, nil)
      if client < 0 {
        if errno == EINTR { continue }
        return
      }
      do {
        let server = try RawConnection.connected(target)
        let isOpen = state.withLock { state in
          state.sockets += [client, server]
          return !state.isClosed
        }
        guard isOpen else { return }
        var yes: Int32 = 1
        let length = socklen_t(MemoryLayout<Int32>.size)
        unsafe setsockopt(client, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, length)
        for (from, to) in [(client, server), (server, client)] {
          let queue = Monitor(Queue())
          try start { $0.receive(from, queue) }
          try start { $0.send(to, queue) }
        }
      } catch {
        shutdown(client, Int32(SHUT_RDWR))
      }
    }
  }

  private func receive(_ socket: Int32, _ queue: Monitor<Queue>) {
    var buffer = [UInt8](repeating: 0, count: 256 << 10)
    while true {
      let count = unsafe recv(socket, &buffer, buffer.count, 0)
      if count < 0, errno == EINTR { continue }
      let now = monotonicNanoseconds()
      queue.withLock { queue in
        if count > 0 {
          let bytes = Array(buffer[..<count])
          queue.pieces.append(Piece(dueAt: now + delayNanoseconds, bytes: bytes))
          queue.byteCount += count
        } else {
          queue.isEnded = true
        }
      }
      queue.notifyAll()
      guard count > 0 else { return }
      let _: Void? = queue.wait(until: nil) { queue in
        queue.byteCount < Self.byteCountMax || queue.isEnded ? () : nil
      }
    }
  }

  private func send(_ socket: Int32, _ queue: Monitor<Queue>) {
    defer { shutdown(socket, Int32(SHUT_RDWR)) }
    while true {
      let pieces: [Piece]? = queue.wait(until: nil) { queue in
        guard !queue.pieces.isEmpty || queue.isEnded else { return nil }
        defer { queue.pieces = [] }
        return queue.pieces
      }
      guard let pieces, !pieces.isEmpty else { return }
      for piece in pieces {
        let now = monotonicNanoseconds()
        if piece.dueAt > now { usleep(UInt32((piece.dueAt - now) / 1000)) }
        guard sendAll(socket, piece.bytes) else {
          // Who receives must not wait for us.
          queue.withLock { $0.isEnded = true }
          queue.notifyAll()
          return
        }
        queue.withLock { $0.byteCount -= piece.bytes.count }
        queue.notifyAll()
      }
    }
  }

  private func sendAll(_ socket: Int32, _ bytes: [UInt8]) -> Bool {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = unsafe rest.withUnsafeBytes { bytes in
        unsafe Glibc.send(socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return false }
      rest = rest.dropFirst(count)
    }
    return true
  }
}
