internal import Glibc
internal import KVCore
internal import KVRemote

/// Requests to one or several nodes at once, and their replies, within one deadline.
///
/// Each node has a lane: a connection on which its requests are pipelined. One thread drives all of them with `poll`, so a node that hangs holds up its own
/// requests only. Unsafe: lends memory of the caller's to connections while `run` runs.
@safe final class Exchange {
  /// What became of a request.
  enum Outcome {
    case reply(Reply)
    /// A string of so many bytes; kept: in the memory that was given.
    case bulk(byteCount: Int, wasKept: Bool)
    /// The server said no.
    case refused(ServerError)
    case failed(RemoteError)
  }

  enum Verdict { case goOn, stop }

  typealias Memory = (_ index: Int, _ byteCount: Int) -> UnsafeMutableRawBufferPointer?

  private let requests: [Request]
  private let topology: Topology
  private let deadline: UInt64
  private let memory: Memory
  private let done: (_ index: Int, Outcome) -> Verdict
  private var lanes: [Lane] = []
  private var isEnded: [Bool]
  private var openCount: Int
  private var redirectionCounts: [Int: Int] = [:]
  private var isStopped = false
  private var polledLanes: [Lane] = []
  private var entries: [pollfd] = []
  /// Redirections that a request follows: a map that changes right now settles in a few.
  private static let redirectionCountMax = 5

  init(
    _ requests: [Request],
    _ topology: Topology,
    deadline: UInt64,
    memory: @escaping Memory = { _, _ in nil },
    done: @escaping (_ index: Int, Outcome) -> Verdict
  ) {
    self.requests = requests
    self.topology = topology
    self.deadline = deadline
    unsafe self.memory = memory
    self.done = done
    isEnded = Array(repeating: false, count: requests.count)
    openCount = requests.count
  }

  /// Returns when each request has its outcome, by the deadline at the latest.
  func run() {
    for (index, request) in requests.enumerated() {
      switch request.target {
      case .node(let node): enqueue(index, on: node)
      case .slot(let slot):
        if let node = topology.node(of: slot) {
          // Only in a cluster are there others to go on with.
          if topology.isCluster, node.isPaused {
            end(index, .failed(.unreachable(errno: EHOSTDOWN)))
          } else {
            enqueue(index, on: node)
          }
        } else {
          topology.noteUnavailable()
          end(index, .failed(.unavailable))
        }
      }
    }
    for lane in lanes { start(lane) }
    while openCount > 0, !isStopped {
      for lane in lanes where lane.isWorking { advance(lane, events: 0) }
      if openCount == 0 || isStopped { break }
      let now = monotonicNanoseconds()
      if now >= deadline {
        failAll(.timedOut)
        break
      }
      if topology.isClosed {
        failAll(.closed)
        break
      }
      wait(now)
    }
    for lane in lanes {
      if let connection = lane.connection, lane.isAtRest { lane.node.giveBack(connection) }
      lane.connection = nil
    }
  }

  private func failAll(_ error: RemoteError) {
    for lane in lanes where lane.hasRequests {
      // One that is slow with what it was asked is not gone; one of which nothing came is.
      if error == .timedOut, lane.isSilent { topology.noteFailure(of: lane.node) }
      fail(lane, error)
    }
  }

  private func end(_ index: Int, _ outcome: Outcome) {
    guard !isEnded[index] else { return }
    isEnded[index] = true
    openCount -= 1
    if done(index, outcome) == .stop { isStopped = true }
  }

  // MARK: Lanes

  private func enqueue(_ index: Int, on node: Node, isAsked: Bool = false) {
    lane(of: node).waiting.append((index, isAsked))
  }

  private func lane(of node: Node) -> Lane {
    if let lane = lanes.first(where: { $0.node === node }) { return lane }
    let lane = Lane(node, self)
    lanes.append(lane)
    return lane
  }

  private func start(_ lane: Lane) {
    do throws(RemoteError) {
      let (connection, wasUsed) =
        lane.isRetry
        ? (try lane.node.newConnection(deadline: deadline), false)
        : try lane.node.connection(deadline: deadline)
      lane.connection = connection
      lane.wasUsed = wasUsed
      lane.byteCountBefore = connection.receivedByteCount
    } catch {
      fail(lane, error)
    }
  }

  /// Ends all requests of a lane; its connection is closed.
  private func fail(_ lane: Lane, _ error: RemoteError) {
    lane.connection = nil
    for index in lane.takeAll() { end(index, .failed(error)) }
  }

  private func advance(_ lane: Lane, events: Int16) {
    guard let connection = lane.connection else {
      if lane.hasRequests { start(lane) }
      return
    }
    do throws(RemoteError) {
      lane.fill(requests)
      try connection.advance(events, lane)
      try connection.checkTime()
    } catch {
      lane.connection = nil
      // A connection that lay idle may have been closed by the server just now, as if there had been none.
      if case .unreachable = error, lane.wasUsed, !lane.isRetry,
        connection.receivedByteCount == lane.byteCountBefore
      {
        lane.isRetry = true
        lane.requeue()
        start(lane)
        return
      }
      if error.isOfTransport { topology.noteFailure(of: lane.node) }
      fail(lane, error)
    }
  }

  private func wait(_ now: UInt64) {
    polledLanes.removeAll(keepingCapacity: true)
    entries.removeAll(keepingCapacity: true)
    var until = min(deadline, now + 50_000_000)  // then `close` is looked for
    for lane in lanes {
      guard lane.isWorking, let connection = lane.connection else { continue }
      if connection.hasMore { until = now }
      if !connection.isReady { until = min(until, connection.stepDeadline) }
      polledLanes.append(lane)
      entries.append(pollfd(fd: connection.descriptor, events: connection.events, revents: 0))
    }
    let milliseconds = until > now ? Int32(clamping: (until - now + 999_999) / 1_000_000) : 0
    _ = unsafe poll(&entries, UInt(entries.count), milliseconds)
    for (entry, lane) in zip(entries, polledLanes) {
      let hasMore = lane.connection?.hasMore ?? false
      if entry.revents != 0 || hasMore {
        advance(lane, events: entry.revents == 0 ? Int16(POLLIN) : entry.revents)
      }
      if isStopped { return }
    }
  }

  // MARK: Replies

  fileprivate func takesBulk(_ index: Int) -> Bool { requests[index].takesBulk }

  fileprivate func memory(_ index: Int, byteCount: Int) -> UnsafeMutableRawBufferPointer? {
    unsafe memory(index, byteCount)
  }

  fileprivate func receive(
    _ index: Int,
    _ reply: Reply,
    byteCount: Int,
    wasKept: Bool,
    from lane: Lane
  ) {
    switch reply {
    case .lentBulk: end(index, .bulk(byteCount: byteCount, wasKept: wasKept))
    case .error(let error):
      guard let redirection = error.redirection else {
        if error.remoteError == .unavailable { topology.noteUnavailable() }
        return end(index, .refused(error))
      }
      let count = redirectionCounts[index, default: 0]
      redirectionCounts[index] = count + 1
      guard count < Self.redirectionCountMax,
        let node = topology.redirected(redirection, by: lane.node)
      else { return end(index, .refused(error)) }
      enqueue(index, on: node, isAsked: redirection.isOnce)
    default: end(index, .reply(reply))
    }
  }
}

/// The requests to one node, in the order of their replies.
private final class Lane: ReplyReceiver {
  let node: Node
  private unowned let exchange: Exchange
  var connection: Connection?
  var wasUsed = false
  var isRetry = false
  var byteCountBefore = 0
  var waiting: [(index: Int, isAsked: Bool)] = []
  private var waitingStart = 0
  /// nil: the reply to ASKING.
  private var flying: [(index: Int?, isAsked: Bool)] = []
  private var flyingStart = 0
  private var flyingBulkCount = 0
  private static let bulkCountMax = 8
  private static let outputByteCountMax = 64 << 10

  init(_ node: Node, _ exchange: Exchange) {
    self.node = node
    self.exchange = exchange
  }

  /// Nothing came from the node in this exchange.
  var isSilent: Bool { (connection?.receivedByteCount ?? 0) == byteCountBefore }
  var hasRequests: Bool { waitingStart < waiting.count || flyingStart < flying.count }
  var isWorking: Bool { hasRequests }
  /// All that was sent is answered.
  var isAtRest: Bool { !hasRequests }

  /// Hands as many requests to the connection as are good for it: strings a few at a time, so that the server does not have to keep all of them.
  func fill(_ requests: [Request]) {
    // Nothing may overtake AUTH and SELECT.
    guard let connection, connection.isReady else { return }
    while waitingStart < waiting.count, connection.outputByteCount < Self.outputByteCountMax {
      let (index, isAsked) = waiting[waitingStart]
      let request = requests[index]
      if request.takesBulk {
        if flyingBulkCount >= Self.bulkCountMax { return }
        flyingBulkCount += 1
      }
      waitingStart += 1
      if isAsked {
        connection.enqueue(Request(.node(node), ["ASKING"]))
        flying.append((nil, false))
      }
      connection.enqueue(request)
      flying.append((index, isAsked))
    }
  }

  /// All requests that have no reply; the lane is empty then.
  func takeAll() -> [Int] {
    let indices = flying[flyingStart...].compactMap(\.index) + waiting[waitingStart...].map(\.index)
    flying = []
    waiting = []
    (flyingStart, waitingStart, flyingBulkCount) = (0, 0, 0)
    return indices
  }

  /// What was sent is to be sent again.
  func requeue() {
    let again = flying[flyingStart...].compactMap { entry in entry.index.map { ($0, entry.isAsked) }
    }
    waiting = again + waiting[waitingStart...]
    flying = []
    (flyingStart, waitingStart, flyingBulkCount) = (0, 0, 0)
  }

  // MARK: ReplyReceiver

  private var first: Int? { flyingStart < flying.count ? flying[flyingStart].index : nil }

  var expectsBulk: Bool { first.map(exchange.takesBulk) ?? false }

  func memory(byteCount: Int) -> UnsafeMutableRawBufferPointer? {
    guard let first else { return nil }
    return unsafe exchange.memory(first, byteCount: byteCount)
  }

  func receive(_ reply: Reply, byteCount: Int, wasKept: Bool) throws(RemoteError) {
    guard flyingStart < flying.count else { throw .protocolViolation("a reply to nothing") }
    let index = flying[flyingStart].index
    flyingStart += 1
    if flyingStart == flying.count {
      flying.removeAll(keepingCapacity: true)
      flyingStart = 0
    }
    guard let index else { return }
    if exchange.takesBulk(index) { flyingBulkCount -= 1 }
    exchange.receive(index, reply, byteCount: byteCount, wasKept: wasKept, from: self)
  }
}
