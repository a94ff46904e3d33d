internal import KVCore
package import KVRemote

/// Objects in a Valkey or Redis server, or in a cluster of them: each is a string under its name.
///
/// Nothing is connected before the first call. Calls share connections: as many are open as calls run at once, and some stay open between them. Thread-safe.
/// Needs Redis 7.0 or any Valkey (`PEXPIRE … GT`).
package final class RedisObjects: RemoteObjects {
  let topology: Topology

  /// The servers' own bound of a string (proto-max-bulk-len); a server may have set a lower one.
  package static let objectByteCountMax = 512 << 20

  /// - Throws: `insecure`, when the settings ask for TLS that cannot be had.
  package init(_ configuration: RedisConfiguration) throws(RemoteError) {
    let greetings = configuration.greetings
    let tls: TLSContext?
    if let settings = configuration.tls { tls = try TLSContext(settings) } else { tls = nil }
    let settings = ConnectionSettings(
      tls: tls,
      greetings: { [greetings] in greetings },
      connectNanoseconds: max(configuration.connectMilliseconds, 1) * 1_000_000
    )
    topology = Topology(configuration, settings)
  }

  deinit { topology.close() }

  package func close() { topology.close() }

  // MARK: Calls

  /// Names whose node does not answer count as absent, unless no node answers.
  package func exist(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> [Bool] {
    var found = Array(repeating: false, count: names.count)
    try each(names.map { Request("EXISTS", $0) }, deadline: deadline) { index, reply in
      found[index] = reply.number == 1
    }
    return found
  }

  package func get(
    _ names: [RemoteName],
    deadline: UInt64,
    memory: (_ index: Int, _ byteCount: Int) -> UnsafeMutableRawBufferPointer?,
    done: (_ index: Int, RemoteRead) -> Void
  ) throws(RemoteError) {
    let requests = names.map { Request("GET", $0, takesBulk: true) }
    var error: RemoteError?
    var answeredCount = 0
    unsafe withoutActuallyEscaping(memory) { memory in
      withoutActuallyEscaping(done) { done in
        unsafe run(requests, deadline: deadline, memory: memory) { index, outcome in
          let read = Self.read(outcome)
          switch read {
          // What is wrong with one object ends nothing: no string lies there.
          case .failed(.refused): answeredCount += 1
          case .failed(let reason): error = error ?? reason
          default: answeredCount += 1
          }
          done(index, read)
          return .goOn
        }
      }
    }
    // A node of several that fails is told object by object.
    if let error, answeredCount == 0 || !topology.isCluster { throw error }
  }

  private static func read(_ outcome: Exchange.Outcome) -> RemoteRead {
    switch outcome {
    case .bulk(let byteCount, let wasKept): wasKept ? .whole(byteCount: byteCount) : .skipped
    case .reply(.null): .absent
    case .reply: .failed(.protocolViolation("GET has an answer of another type"))
    case .refused(let error): .failed(error.remoteError)
    case .failed(let error): .failed(error)
    }
  }

  package func putIfAbsent(
    _ name: RemoteName,
    pieces: [UnsafeRawBufferPointer],
    timeToLiveMilliseconds: UInt64?,
    deadline: UInt64
  ) throws(RemoteError) -> RemoteWrite {
    let byteCount = unsafe pieces.reduce(0) { $0 + $1.count }
    guard byteCount <= Self.objectByteCountMax else { throw .tooLarge }
    var options = ["NX"]
    if let time = timeToLiveMilliseconds { options += ["PX", Self.milliseconds(time)] }
    let request = unsafe Request(setting: name, to: pieces, byteCount: byteCount, options: options)
    switch try one(request, deadline: deadline) {
    case .text: return .stored
    case .null: return .existed
    default: throw .protocolViolation("SET has an answer of another type")
    }
  }

  /// An object that never leaves stays so.
  package func extend(
    _ names: [RemoteName],
    timeToLiveMilliseconds: UInt64,
    deadline: UInt64
  ) throws(RemoteError) {
    let time = Self.milliseconds(timeToLiveMilliseconds)
    // Without an expiry counts as endless to GT.
    try each(names.map { Request("PEXPIRE", $0, [time, "GT"]) }, deadline: deadline, isWhole: true)
    {
      _,
      _ in
    }
  }

  package func remove(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> Int {
    var count = 0
    try each(names.map { Request("UNLINK", $0) }, deadline: deadline, isWhole: true) { _, reply in
      if reply.number == 1 { count += 1 }
    }
    return count
  }

  /// The servers refuse times that do not fit into their clock; a century is as good.
  private static func milliseconds(_ time: UInt64) -> String {
    String(min(max(time, 1), 100 * 365 * 86_400_000))
  }

  // MARK: Requests

  func run(
    _ requests: [Request],
    deadline: UInt64,
    memory: @escaping Exchange.Memory = { _, _ in nil },
    done: @escaping (_ index: Int, Exchange.Outcome) -> Exchange.Verdict
  ) {
    topology.refresh(deadline: deadline)
    unsafe Exchange(requests, topology, deadline: deadline, memory: memory, done: done).run()
  }

  /// Asks all, and hears the replies that are no errors.
  ///
  /// - Parameters:
  ///   - requests: what is asked.
  ///   - deadline: of the call.
  ///   - isWhole: an error of any of them is one of the call; else only when all fail, or outside a cluster.
  ///   - body: gets each reply that is no error.
  /// - Throws: the first error.
  func each(
    _ requests: [Request],
    deadline: UInt64,
    isWhole: Bool = false,
    _ body: (_ index: Int, Reply) -> Void
  ) throws(RemoteError) {
    var error: RemoteError?
    var answeredCount = 0
    withoutActuallyEscaping(body) { body in
      unsafe run(requests, deadline: deadline) { index, outcome in
        switch outcome {
        case .reply(let reply):
          answeredCount += 1
          body(index, reply)
        case .bulk: break
        case .refused(let refusal): error = error ?? refusal.remoteError
        case .failed(let failure): error = error ?? failure
        }
        return .goOn
      }
    }
    if let error, isWhole || answeredCount == 0 || !topology.isCluster { throw error }
  }

  func one(_ request: Request, deadline: UInt64) throws(RemoteError) -> Reply {
    var answer: Reply?
    try each([request], deadline: deadline, isWhole: true) { _, reply in answer = reply }
    guard let answer else { throw .timedOut }
    return answer
  }
}
