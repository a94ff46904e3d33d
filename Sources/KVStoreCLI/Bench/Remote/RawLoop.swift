import Glibc
import KVCore
import KVRedis

/// The best that a plain program does: SET and GET of one length on blocking connections, a thread each, and no look at what comes
/// back beyond its length.
final class RawLoop: Sendable {
  private let connections: [RawConnection]
  private let prefix: String
  private let byteCount: Int

  /// nil where a plain loop cannot speak to the server: TLS, a cluster.
  init?(
    _ configuration: RedisConfiguration,
    connectionCount: Int,
    prefix: String,
    byteCount: Int
  ) throws {
    guard configuration.tls == nil, configuration.endpoints.count == 1,
      let endpoint = configuration.endpoints.first
    else { return nil }
    self.prefix = prefix
    self.byteCount = byteCount
    var connections: [RawConnection] = []
    for _ in 0..<connectionCount {
      connections.append(
        try RawConnection(endpoint, configuration.greetings, byteCount: byteCount)
      )
    }
    self.connections = connections
    guard try connections[0].isAlone() else { return nil }
  }

  func name(_ number: Int) -> String { "\(prefix):\(number)" }

  func put(_ count: Int) throws -> BenchSample {
    try measure(count) { try $0.set(self.name($1)) }
  }

  func get(_ count: Int) throws -> BenchSample {
    try measure(count) { try $0.get(self.name($1)) }
  }

  private func measure(
    _ count: Int,
    _ body: @escaping @Sendable (RawConnection, Int) throws -> Void
  ) throws -> BenchSample {
    try BenchSample(byteCount: count * byteCount, threadCount: connections.count) { thread in
      for index in stride(from: thread, to: count, by: self.connections.count) {
        try body(self.connections[thread], index)
      }
    }
  }
}

/// What moving some bytes took.
struct BenchSample {
  let byteCount: Int
  let nanoseconds: UInt64
  /// Of all threads of this process.
  let cpuNanoseconds: UInt64

  var gigabytesPerSecond: Double { KVStoreCLI.gigabytesPerSecond(byteCount, nanoseconds) }
  var cpuSecondsPerGigabyte: Double { Double(cpuNanoseconds) / Double(byteCount) }

  init(byteCount: Int, nanoseconds: UInt64, cpuNanoseconds: UInt64) {
    self.byteCount = byteCount
    self.nanoseconds = nanoseconds
    self.cpuNanoseconds = cpuNanoseconds
  }

  /// Times a body.
  init(byteCount: Int, _ body: () throws -> Void) rethrows {
    let (start, cpu) = (monotonicNanoseconds(), processCPUNanoseconds())
    try body()
    self.init(
      byteCount: byteCount,
      nanoseconds: monotonicNanoseconds() - start,
      cpuNanoseconds: processCPUNanoseconds() - cpu
    )
  }

  /// Times a body that runs on several threads at once.
  init(
    byteCount: Int,
    threadCount: Int,
    _ body: @escaping @Sendable (Int) throws -> Void
  ) throws {
    let failure = Monitor<(any Error)?>(nil)
    try self.init(byteCount: byteCount) {
      let threads = (0..<threadCount).compactMap { number in
        ServiceThread.start {
          do { try body(number) } catch { failure.withLock { $0 = error } }
        }
      }
      for thread in threads { thread.join() }
      guard threads.count == threadCount else {
        throw CommandFailure("the system gives no more threads")
      }
    }
    if let error = failure.withLock({ $0 }) { throw error }
  }
}

/// A blocking connection; one thread uses it at a time.
///
/// Unsafe: the system reads into and writes from its own memory.
@safe final class RawConnection: @unchecked Sendable {
  private let number: Int32
  private let memory: UnsafeMutableRawBufferPointer
  private let byteCount: Int

  init(
    _ endpoint: RedisConfiguration.Endpoint,
    _ greetings: [[UInt8]],
    byteCount: Int
  ) throws {
    self.byteCount = byteCount
    number = try Self.connected(endpoint)
    unsafe memory = .allocate(byteCount: byteCount + 64, alignment: 64)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 7)
    for greeting in greetings {
      try send(greeting)
      guard try receive(5) == Array("+OK\r\n".utf8) else {
        throw CommandFailure("the server refuses these credentials or that database")
      }
    }
  }

  deinit {
    close(number)
    unsafe memory.deallocate()
  }

  static func connected(_ endpoint: RedisConfiguration.Endpoint) throws -> Int32 {
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var first: UnsafeMutablePointer<addrinfo>?
    guard unsafe getaddrinfo(endpoint.host, "\(endpoint.port)", &hints, &first) == 0 else {
      throw CommandFailure("\(endpoint): there is no such host")
    }
    defer { unsafe freeaddrinfo(first) }
    var code = EHOSTUNREACH
    var next = unsafe first
    while let entry = unsafe next {
      let number = unsafe socket(
        entry.pointee.ai_family,
        Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue),
        0
      )
      if unsafe connect(number, entry.pointee.ai_addr, entry.pointee.ai_addrlen) == 0 {
        var yes: Int32 = 1
        unsafe setsockopt(
          number,
          Int32(IPPROTO_TCP),
          TCP_NODELAY,
          &yes,
          socklen_t(MemoryLayout<Int32>.size)
        )
        return number
      }
      code = errno
      close(number)
      unsafe next = entry.pointee.ai_next
    }
    throw CommandFailure("\(endpoint): cannot be reached: \(errorText(code))")
  }

  /// Whether the server is one by itself: in a cluster each knows a part of the names only.
  func isAlone() throws -> Bool {
    try send(Array("INFO cluster\r\n".utf8))
    var head: [UInt8] = []
    while head.last != 10 {
      head += try receive(1)
      guard head.count < 64 else { throw CommandFailure("the server does not speak RESP") }
    }
    // A user who may not ask has no plain loop either.
    guard head.first == UInt8(ascii: "$"),
      let length = Int(String(decoding: head.dropFirst().dropLast(2), as: UTF8.self))
    else { return false }
    let text = String(decoding: try receive(length + 2), as: UTF8.self)
    return !text.contains("cluster_enabled:1")
  }

  func set(_ name: String) throws {
    let head =
      "*5\r\n$3\r\nSET\r\n$\(name.utf8.count)\r\n\(name)\r\n$\(byteCount)\r\n"
    let tail = "\r\n$2\r\nPX\r\n$6\r\n600000\r\n"
    try send(Array(head.utf8), payloadByteCount: byteCount, Array(tail.utf8))
    guard try receive(5).first == UInt8(ascii: "+") else {
      throw CommandFailure("the server does not take an object (is it full?)")
    }
  }

  func get(_ name: String) throws {
    try send(Array("*2\r\n$3\r\nGET\r\n$\(name.utf8.count)\r\n\(name)\r\n".utf8))
    let expected = Array("$\(byteCount)\r\n".utf8)
    guard try receive(expected.count, payloadByteCount: byteCount + 2) == expected else {
      throw CommandFailure("the server has lost an object (is it full?)")
    }
  }

  /// Sends some bytes, so much of the memory, and more bytes.
  private func send(
    _ head: [UInt8],
    payloadByteCount: Int = 0,
    _ tail: [UInt8] = []
  ) throws {
    var (head, tail) = (head, tail)
    try unsafe head.withUnsafeMutableBytes { first in
      try unsafe tail.withUnsafeMutableBytes { second in
        let vectors = unsafe [
          iovec(iov_base: first.baseAddress, iov_len: first.count),
          iovec(iov_base: memory.baseAddress, iov_len: payloadByteCount),
          iovec(iov_base: second.baseAddress, iov_len: second.count),
        ]
        unsafe try move(vectors) { unsafe writev(number, $0, $1) }
      }
    }
  }

  /// Receives so many bytes, and what follows into the memory.
  private func receive(_ count: Int, payloadByteCount: Int = 0) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    try unsafe bytes.withUnsafeMutableBytes { first in
      let vectors = unsafe [
        iovec(iov_base: first.baseAddress, iov_len: first.count),
        iovec(iov_base: memory.baseAddress, iov_len: payloadByteCount),
      ]
      unsafe try move(vectors) { unsafe readv(number, $0, $1) }
    }
    return bytes
  }

  /// Calls until all is moved.
  @unsafe private func move(
    _ vectors: [iovec],
    _ call: (UnsafePointer<iovec>?, Int32) -> Int
  ) throws {
    var rest = unsafe vectors[...]
    while true {
      while let first = unsafe rest.first, unsafe first.iov_len == 0 { unsafe rest.removeFirst() }
      if unsafe rest.isEmpty { return }
      var moved = unsafe Array(rest).withUnsafeBufferPointer {
        unsafe call($0.baseAddress, Int32($0.count))
      }
      if moved < 0, errno == EINTR { continue }
      guard moved > 0 else { throw CommandFailure("the server hung up: \(errorText(errno))") }
      while moved > 0, let first = unsafe rest.first {
        let step = unsafe min(moved, first.iov_len)
        moved -= step
        let index = unsafe rest.startIndex
        unsafe rest[index].iov_base = unsafe first.iov_base.map { unsafe $0 + step }
        unsafe rest[index].iov_len -= step
        if unsafe rest[index].iov_len == 0 { unsafe rest.removeFirst() }
      }
    }
  }
}
