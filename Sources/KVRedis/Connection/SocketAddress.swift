internal import Glibc
internal import KVCore

/// An address of the system's, as `connect` takes it.
struct SocketAddress: Sendable {
  /// A `sockaddr`, of the family's own length.
  let bytes: [UInt8]
  let family: Int32

  /// Whether it is this machine's own (127.0.0.0/8, ::1).
  var isLoopback: Bool {
    switch family {
    case AF_INET: bytes.count > 4 && bytes[4] == 127
    case AF_INET6: bytes.count >= 24 && bytes[8..<23].allSatisfy { $0 == 0 } && bytes[23] == 1
    default: false
    }
  }

  /// The addresses that a host and a port stand for; waits for name servers unless `isNumeric`, which fails for a name.
  static func resolve(_ host: String, port: UInt16, isNumeric: Bool) -> [SocketAddress] {
    var hints = unsafe addrinfo()
    unsafe hints.ai_family = AF_UNSPEC
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = AI_NUMERICSERV | (isNumeric ? AI_NUMERICHOST : 0)
    var first: UnsafeMutablePointer<addrinfo>?
    guard unsafe getaddrinfo(host, String(port), &hints, &first) == 0 else { return [] }
    defer { unsafe freeaddrinfo(first) }
    var addresses: [SocketAddress] = []
    var next = unsafe first
    while let entry = unsafe next, addresses.count < 16 {
      if let address = unsafe entry.pointee.ai_addr {
        let bytes = unsafe UnsafeRawBufferPointer(
          start: address,
          count: Int(entry.pointee.ai_addrlen)
        )
        unsafe addresses.append(SocketAddress(bytes: Array(bytes), family: entry.pointee.ai_family))
      }
      unsafe next = entry.pointee.ai_next
    }
    return addresses
  }
}

/// Finds the addresses of names on threads of its own, since the system's resolver knows no deadline.
final class NameResolver: Sendable {
  private struct Answer {
    var addresses: [SocketAddress]
    var time: UInt64
  }

  private struct State {
    var answers: [String: Answer] = [:]
    var running: Set<String> = []
  }

  private let state = Monitor(State())
  /// An answer of that age is used at once and asked for again beside it.
  private static let freshNanoseconds: UInt64 = 30_000_000_000
  private static let nameCountMax = 4096

  /// The addresses of a host; empty when there are none, or not by the deadline.
  func addresses(of host: String, port: UInt16, deadline: UInt64) -> [SocketAddress] {
    let numeric = SocketAddress.resolve(host, port: port, isNumeric: true)
    if !numeric.isEmpty { return numeric }
    let name = "\(host):\(port)"
    let (known, starts) = state.withLock { state in
      let known = state.answers[name]
      let isFresh = known.map { monotonicNanoseconds() &- $0.time < Self.freshNanoseconds } ?? false
      // One thread a name: a resolver that hangs does not gather threads.
      let starts = !isFresh && state.running.count < 64 && state.running.insert(name).inserted
      return (known, starts)
    }
    if starts { start(host, port, name) }
    if let known { return known.addresses }
    return state.wait(until: deadline) { state in
      state.answers[name]?.addresses ?? (state.running.contains(name) ? nil : [])
    } ?? []
  }

  /// Forgets what a name stood for: nothing answers there.
  func forget(_ host: String, port: UInt16) {
    state.withLock { $0.answers["\(host):\(port)"] = nil }
  }

  private func start(_ host: String, _ port: UInt16, _ name: String) {
    let thread = ServiceThread.start { [state] in
      let addresses = SocketAddress.resolve(host, port: port, isNumeric: false)
      state.withLock { state in
        state.running.remove(name)
        if state.answers.count >= Self.nameCountMax { state.answers.removeAll() }
        state.answers[name] =
          addresses.isEmpty ? nil : Answer(addresses: addresses, time: monotonicNanoseconds())
      }
      state.notifyAll()
    }
    guard let thread else {
      state.withLock { _ = $0.running.remove(name) }
      return
    }
    // It touches nothing but the state that it holds.
    thread.detach()
  }
}
