internal import KVCore
internal import KVRemote

/// A server, and the idle connections to it.
final class Node: Sendable {
  let endpoint: RedisConfiguration.Endpoint

  private struct State {
    var idle: [Connection] = []
    var isClosed = false
    var failureCount = 0
    /// Nobody asks it before.
    var pausedUntil: UInt64 = 0
  }

  private let state = Monitor(State())
  private let settings: ConnectionSettings
  private let resolver: NameResolver
  private let idleCountMax: Int

  init(
    _ endpoint: RedisConfiguration.Endpoint,
    _ settings: ConnectionSettings,
    _ resolver: NameResolver,
    idleCountMax: Int
  ) {
    self.endpoint = endpoint
    self.settings = settings
    self.resolver = resolver
    self.idleCountMax = idleCountMax
  }

  /// An idle connection on which nothing happened meanwhile, or a new one.
  ///
  /// - Returns: with whether it was used before: the server may have closed it at this moment.
  func connection(deadline: UInt64) throws(RemoteError) -> (connection: Connection, wasUsed: Bool) {
    while let idle = state.withLock({ $0.idle.popLast() }) {
      if idle.isQuiet { return (idle, true) }
    }
    return (try newConnection(deadline: deadline), false)
  }

  func newConnection(deadline: UInt64) throws(RemoteError) -> Connection {
    if state.withLock({ $0.isClosed }) { throw .closed }
    let ready = min(deadline, KVCore.deadline(after: settings.connectNanoseconds))
    let addresses = resolver.addresses(of: endpoint.host, port: endpoint.port, deadline: ready)
    return try Connection(settings, host: endpoint.host, addresses: addresses, readyDeadline: ready)
  }

  /// Keeps a connection for the next call, if it may be used again.
  func giveBack(_ connection: Connection) {
    guard connection.isIdle else { return }
    state.withLock { state in
      state.failureCount = 0
      if !state.isClosed, state.idle.count < idleCountMax { state.idle.append(connection) }
    }
  }

  /// Whether it failed a moment ago; asking it again would cost each call its deadline.
  var isPaused: Bool { state.withLock { $0.pausedUntil > monotonicNanoseconds() } }

  /// It did not answer: its connections are of no use, and for a while nobody asks it, for longer each time (0.1 to 3.2 s).
  func noteFailure() {
    resolver.forget(endpoint.host, port: endpoint.port)
    let dropped = state.withLock { state in
      state.failureCount = min(state.failureCount + 1, 6)
      state.pausedUntil = deadline(after: 50_000_000 << UInt64(state.failureCount))
      defer { state.idle = [] }
      return state.idle
    }
    _ = dropped
  }

  func close() {
    state.withLock { state in
      state.isClosed = true
      state.idle = []
    }
  }
}
