import Glibc
import KVCore
import KVRemote
import Testing

@testable import KVRedis

/// A socket that listens on a free port of loopback.
private func listening(queueLength: Int32) -> (listener: Int32, port: UInt16) {
  let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
  var length = socklen_t(MemoryLayout<sockaddr_in>.size)
  withUnsafeMutablePointer(to: &address) { pointer in
    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
      _ = bind(listener, pointer, length)
      _ = listen(listener, queueLength)
      _ = getsockname(listener, pointer, &length)
    }
  }
  return (listener, UInt16(bigEndian: address.sin_port))
}

/// A server that answers as it is told, on a thread of its own; ends with the test.
private final class Script: @unchecked Sendable {
  let port: UInt16
  private let listener: Int32

  /// - Parameter serve: gets each connection in turn, and closes it by returning.
  init(_ serve: @escaping @Sendable (_ connection: Int32) -> Void) {
    let (listener, port) = listening(queueLength: 16)
    self.port = port
    self.listener = listener
    let thread = ServiceThread.start {
      while true {
        let connection = accept(listener, nil, nil)
        // Shut down; closed here only, since its number is somebody else's then.
        if connection < 0 {
          close(listener)
          return
        }
        serve(connection)
        close(connection)
      }
    }
    thread?.detach()
  }

  func stop() {
    shutdown(listener, Int32(SHUT_RDWR))
  }

  /// Reads until so many commands have come (each ends with a line end after its last argument), or the end.
  static func read(_ connection: Int32, until isEnough: (String) -> Bool) -> String {
    var text = ""
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while !isEnough(text) {
      let count = recv(connection, &buffer, buffer.count, 0)
      if count <= 0 { return text }
      text += String(decoding: buffer[..<count], as: UTF8.self)
    }
    return text
  }

  static func write(_ connection: Int32, _ text: String) {
    let bytes = Array(text.utf8)
    _ = send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL))
  }
}

/// What is asked first of every server: whether it is a cluster.
private let noCluster = "-ERR This instance has cluster support disabled\r\n"

private func answerMap(_ connection: Int32) {
  _ = Script.read(connection) { $0.contains("SLOTS\r\n") }
  Script.write(connection, noCluster)
}

@Suite(.serialized) struct ServerTests {
  private func objects(_ script: Script, _ change: (inout RedisConfiguration) -> Void = { _ in })
    throws
    -> RedisObjects
  {
    var configuration = try RedisConfiguration(url: "redis://127.0.0.1:\(script.port)")
    configuration.connectMilliseconds = 10_000
    change(&configuration)
    return try RedisObjects(configuration)
  }

  private static let second: UInt64 = 1_000_000_000

  /// Replies to commands that nobody sent, at once or a moment later, are not taken for those to the next call.
  @Test(arguments: [true, false])
  func tooManyReplies(_ isAtOnce: Bool) throws {
    let script = Script { connection in
      var text = Script.read(connection) { $0.contains("SLOTS\r\n") || $0.contains("EXISTS") }
      if text.contains("SLOTS\r\n") {
        Script.write(connection, noCluster)
        text = Script.read(connection) { $0.contains("EXISTS") }
      }
      Script.write(connection, isAtOnce ? ":1\r\n:0\r\n:0\r\n" : ":1\r\n")
      if !isAtOnce {
        usleep(10_000)
        Script.write(connection, ":0\r\n")
      }
      _ = Script.read(connection) { _ in false }
    }
    defer { script.stop() }
    let objects = try objects(script)
    for _ in 0..<3 {
      let found = try objects.exist([RemoteName("a")], deadline: deadline(after: 20 * Self.second))
      #expect(found == [true])
      usleep(100_000)
    }
  }

  @Test(arguments: ["*1\r\n", "$99999999999\r\n", "\0\0\0\0", "+OK\r\nxx", "$-5\r\n"])
  func hostileReplies(_ reply: String) throws {
    let script = Script { connection in
      answerMap(connection)
      _ = Script.read(connection) { $0.contains("GET") }
      Script.write(connection, reply)
    }
    defer { script.stop() }
    let objects = try objects(script)
    var reads: [RemoteRead] = []
    #expect(throws: RemoteError.self) {
      try objects.get(
        [RemoteName("a")],
        deadline: deadline(after: 20 * Self.second),
        memory: { _, _ in nil },
        done: { _, read in reads.append(read) }
      )
    }
    #expect(reads.count == 1)
    if case .failed = reads.first {} else { Issue.record("\(reads)") }
  }

  /// A server that goes silent in the middle of an object: the call ends at its deadline, and the memory is the caller's again.
  @Test func silenceInAnObject() throws {
    let script = Script { connection in
      answerMap(connection)
      _ = Script.read(connection) { $0.contains("GET") }
      Script.write(connection, "$100\r\nhalf")
      _ = Script.read(connection) { _ in false }
    }
    defer { script.stop() }
    let objects = try objects(script)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 100, alignment: 8)
    defer { memory.deallocate() }
    var reads: [RemoteRead] = []
    #expect(throws: RemoteError.timedOut) {
      try objects.get(
        [RemoteName("a")],
        deadline: deadline(after: Self.second / 2),
        memory: { _, _ in memory },
        done: { _, read in reads.append(read) }
      )
    }
    #expect(reads == [.failed(.timedOut)])
  }

  /// One that takes connections and says nothing, and one that takes none.
  @Test func silence() throws {
    let script = Script { connection in _ = Script.read(connection) { _ in false } }
    let objects = try objects(script)
    #expect(throws: RemoteError.timedOut) {
      try objects.exist([RemoteName("a")], deadline: deadline(after: Self.second / 5))
    }
    script.stop()
    let nobody = try RedisObjects(RedisConfiguration(url: "redis://127.0.0.1:1"))
    #expect(throws: RemoteError.unreachable(errno: ECONNREFUSED)) {
      try nobody.exist([RemoteName("a")], deadline: deadline(after: 20 * Self.second))
    }
  }

  /// The server closed an idle connection: the next call does not notice.
  @Test func closedWhileIdle() throws {
    let script = Script { connection in
      var text = Script.read(connection) { $0.contains("SLOTS\r\n") || $0.contains("EXISTS") }
      if text.contains("SLOTS\r\n") {
        Script.write(connection, noCluster)
        text = Script.read(connection) { $0.contains("EXISTS") }
      }
      Script.write(connection, ":1\r\n")
    }
    defer { script.stop() }
    let objects = try objects(script)
    for _ in 0..<20 {
      let found = try objects.exist([RemoteName("a")], deadline: deadline(after: 20 * Self.second))
      #expect(found == [true])
    }
  }

  /// A map that leads in circles.
  @Test func redirectionsEnd() throws {
    let port = Monitor<UInt16>(0)
    let asked = Monitor(0)
    let script = Script { connection in
      answerMap(connection)
      while Script.read(connection, until: { $0.contains("EXISTS") }).contains("EXISTS") {
        asked.withLock { $0 += 1 }
        // Itself.
        Script.write(connection, "-MOVED 15495 :\(port.withLock { $0 })\r\n")
      }
    }
    defer { script.stop() }
    port.withLock { $0 = script.port }
    let objects = try objects(script)
    #expect(throws: RemoteError.unavailable) {
      try objects.exist([RemoteName("a")], deadline: deadline(after: 20 * Self.second))
    }
    #expect(asked.withLock { $0 } == 6)
  }

  /// A reply that leads elsewhere: whoever listens there hears nothing, least of all the password, until the cluster's map names it.
  @Test(arguments: ["MOVED", "ASK"]) func redirectionsToStrangersAreNotFollowed(
    kind: String
  ) throws {
    let heard = Monitor("")
    let stranger = Script { connection in
      while true {
        let text = Script.read(connection) { $0.contains("hunter2\r\n") || $0.contains("EXISTS") }
        if text.isEmpty { return }
        heard.withLock { $0 += text }
        if text.contains("hunter2") { Script.write(connection, "+OK\r\n") }
        if text.contains("ASKING") { Script.write(connection, "+OK\r\n") }
        if text.contains("EXISTS") { Script.write(connection, ":1\r\n") }
      }
    }
    defer { stranger.stop() }
    let isNamed = Monitor(false)
    let strangerPort = stranger.port
    let own = Monitor<UInt16>(0)
    let script = Script { connection in
      while true {
        let text = Script.read(connection) {
          $0.contains("hunter2\r\n") || $0.contains("SLOTS\r\n") || $0.contains("EXISTS")
        }
        if text.isEmpty { return }
        if text.contains("hunter2") { Script.write(connection, "+OK\r\n") }
        if text.contains("SLOTS\r\n") {
          // All slots are here; the other one is a node that has none yet.
          var map = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:\(own.withLock { $0 })\r\n"
          if isNamed.withLock({ $0 }) {
            map = map.replacing("*3", with: "*4") + "*2\r\n$9\r\n127.0.0.1\r\n:\(strangerPort)\r\n"
          }
          Script.write(connection, map)
        }
        if text.contains("EXISTS") {
          Script.write(connection, "-\(kind) 15495 127.0.0.1:\(strangerPort)\r\n")
        }
      }
    }
    defer { script.stop() }
    own.withLock { $0 = script.port }
    let objects = try objects(script) {
      $0.credentials = RedisCredentials(user: "kv", password: "hunter2")
    }
    for _ in 0..<3 {
      #expect(throws: RemoteError.unavailable) {
        try objects.exist([RemoteName("a")], deadline: deadline(after: 20 * Self.second))
      }
    }
    #expect(heard.withLock { $0 } == "")
    isNamed.withLock { $0 = true }
    var found = false
    for _ in 0..<600 where !found {
      let limit = deadline(after: 20 * Self.second)
      found = (try? objects.exist([RemoteName("a")], deadline: limit)) == [true]
      if !found { usleep(100_000) }
    }
    #expect(found)
  }

  @Test func closeEndsCalls() throws {
    let script = Script { connection in
      answerMap(connection)
      _ = Script.read(connection) { _ in false }
    }
    defer { script.stop() }
    let objects = try objects(script)
    let thread = ServiceThread.start {
      usleep(200_000)
      objects.close()
    }
    #expect(throws: RemoteError.closed) {
      try objects.exist([RemoteName("a")], deadline: deadline(after: 600 * Self.second))
    }
    thread?.join()
    #expect(throws: RemoteError.closed) {
      try objects.exist([RemoteName("a")], deadline: deadline(after: 600 * Self.second))
    }
  }

  /// No secret in what a failed greeting says.
  @Test func greetingsAreRefused() throws {
    let script = Script { connection in
      _ = Script.read(connection) { $0.contains("hunter2\r\n") }
      Script.write(connection, "-WRONGPASS invalid username-password pair or user is disabled.\r\n")
    }
    defer { script.stop() }
    let objects = try objects(script) {
      $0.credentials = RedisCredentials(user: "kv", password: "hunter2")
    }
    #expect(throws: RemoteError.unauthorized) {
      try objects.exist([RemoteName("a")], deadline: deadline(after: 20 * Self.second))
    }
  }

  @Test func tooLargeIsSaidBeforeItIsSent() throws {
    let nobody = try RedisObjects(RedisConfiguration(url: "redis://127.0.0.1:1"))
    let page = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 8)
    defer { page.deallocate() }
    #expect(throws: RemoteError.tooLarge) {
      try nobody.putIfAbsent(
        RemoteName("a"),
        pieces: Array(repeating: UnsafeRawBufferPointer(page), count: 513),
        timeToLiveMilliseconds: nil,
        deadline: deadline(after: Self.second)
      )
    }
  }
}

@Suite struct ConnectionTests {
  private final class Nobody: ReplyReceiver {
    var expectsBulk: Bool { false }
    func memory(byteCount: Int) -> UnsafeMutableRawBufferPointer? { nil }
    func receive(_ reply: Reply, byteCount: Int, wasKept: Bool) {}
  }

  /// A name with two addresses, of which the first takes no connection: it does not cost the second one's time.
  @Test func anAddressThatDoesNotAnswer() throws {
    // A queue of one that is never emptied: the kernel answers no more calls.
    let (listener, port) = listening(queueLength: 0)
    defer { close(listener) }
    let full = SocketAddress.resolve(
      "127.0.0.1",
      port: port,
      isNumeric: true
    )
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue)
    let fillers = (0..<4).map { _ in socket(AF_INET, kind, 0) }
    defer { for filler in fillers { close(filler) } }
    for filler in fillers {
      full[0].bytes.withUnsafeBytes { bytes in
        _ = connect(
          filler,
          bytes.assumingMemoryBound(to: sockaddr.self).baseAddress,
          socklen_t(bytes.count)
        )
      }
    }
    let script = Script { connection in _ = Script.read(connection) { _ in false } }
    defer { script.stop() }
    let good = SocketAddress.resolve("127.0.0.1", port: script.port, isNumeric: true)
    let settings = ConnectionSettings(tls: nil, greetings: { [] }, connectNanoseconds: 0)
    let end = deadline(after: 4_000_000_000)
    let connection = try Connection(settings, host: "x", addresses: full + good, readyDeadline: end)
    while !connection.isReady {
      var entry = pollfd(fd: connection.descriptor, events: connection.events, revents: 0)
      poll(&entry, 1, 20)
      try connection.advance(entry.revents, Nobody())
      try connection.checkTime()
    }
  }
}
