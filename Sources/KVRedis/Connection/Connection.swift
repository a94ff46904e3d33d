internal import Glibc
internal import KVCore
internal import KVRemote

/// Who hears what a connection receives.
protocol ReplyReceiver: AnyObject {
  /// Whether the next reply is a string that goes into memory of the receiver's.
  var expectsBulk: Bool { get }
  /// Where a string of so many bytes goes; nil, and it is read past.
  func memory(byteCount: Int) -> UnsafeMutableRawBufferPointer?
  /// The next reply. For `.lentBulk`, `byteCount` bytes lie in the memory, or were read past.
  func receive(_ reply: Reply, byteCount: Int, wasKept: Bool) throws(RemoteError)
}

/// A connection to a node: never waits, and is used by one thread at a time.
///
/// It goes through connecting, TLS, and a greeting (AUTH, SELECT), each step as far as the socket lets it. After an error it is of no use: what is on the wire has
/// no known meaning. Unsafe: reads into memory of its own and of the receiver's.
@safe final class Connection: @unchecked Sendable {
  private enum Phase {
    case connecting
    case securing
    case greeting
    case ready
  }

  private let settings: ConnectionSettings
  private let host: String
  private var addresses: ArraySlice<SocketAddress>
  private var socket: Socket?
  private var secure: TLSSession?
  private var phase = Phase.connecting
  private let greetings: [[UInt8]]
  private var greeter: Greeter?
  private var parser = ReplyParser()
  private var output = OutputQueue()
  private let input: UnsafeMutableRawBufferPointer
  private var inputRange = 0..<0
  /// Where the string goes that is being received, and how much is missing of it.
  private var bulk: (memory: UnsafeMutableRawBufferPointer?, byteCount: Int, missing: Int)?
  private var wantsWriteToRead = false
  private var wantsReadToWrite = false
  /// Its turn ended before all was received that is there.
  private(set) var hasMore = false
  /// Bytes that came, ever.
  private(set) var receivedByteCount = 0
  /// When it has to be ready.
  private let readyDeadline: UInt64
  /// When the next address is tried, where there is one; else `readyDeadline`.
  private(set) var stepDeadline: UInt64

  /// Begins to connect to the first of the addresses that takes it.
  init(
    _ settings: ConnectionSettings,
    host: String,
    addresses: [SocketAddress],
    readyDeadline: UInt64
  ) throws(RemoteError) {
    self.settings = settings
    self.host = host
    self.addresses = addresses[...]
    self.readyDeadline = readyDeadline
    stepDeadline = readyDeadline
    greetings = settings.greetings()
    unsafe input = .allocate(byteCount: 65_536, alignment: 64)
    try connectToNext(SocketError(errno: EHOSTUNREACH))
  }

  deinit { unsafe input.deallocate() }

  var isReady: Bool { if case .ready = phase { true } else { false } }

  /// All that was asked is answered, as far as was received.
  var isIdle: Bool { isReady && output.isEmpty && inputRange.isEmpty && parser.isBetweenReplies }

  /// Nothing came that nobody asked for, and the server did not hang up.
  var isQuiet: Bool { socket?.isQuiet ?? false }

  var descriptor: Int32 { socket?.number ?? -1 }

  /// What to wait for.
  var events: Int16 {
    switch phase {
    case .connecting: return Int16(POLLOUT)
    default:
      var events = Int16(POLLIN)
      if wantsWriteToRead || !output.isEmpty && !wantsReadToWrite { events |= Int16(POLLOUT) }
      return events
    }
  }

  /// Bytes that were not sent yet.
  var outputByteCount: Int { output.byteCount }

  func enqueue(_ request: Request) { output.append(request) }

  /// Goes on as far as it can without waiting.
  ///
  /// - Parameters:
  ///   - events: what `poll` said; 0 to try to send only.
  ///   - receiver: hears the replies.
  /// - Throws: why the connection is of no use any more.
  func advance(_ events: Int16, _ receiver: any ReplyReceiver) throws(RemoteError) {
    if case .connecting = phase {
      guard events != 0 else { return }
      do throws(SocketError) { try socket?.checkConnected() } catch {
        try connectToNext(error)
        return
      }
      if let context = settings.tls {
        secure = try TLSSession.made(context, socket: descriptor, host: host)
        phase = .securing
      } else {
        greet()
      }
    }
    if case .securing = phase {
      switch try secure?.connect() {
      case .done: greet()
      case .wantsWrite:
        wantsWriteToRead = true
        return
      default:
        wantsWriteToRead = false
        return
      }
    }
    var sendError: RemoteError?
    do throws(RemoteError) { try flush() } catch { sendError = error }
    // Also after a failed send: the server may have said why it closes.
    let isReadable = events & ~Int16(POLLOUT) != 0 || secure != nil && events != 0
    if isReadable || sendError != nil { try receive(receiver) }
    if let sendError { throw sendError }
  }

  /// Throws once it should be ready; an address that takes no connection has its share of the time.
  func checkTime() throws(RemoteError) {
    guard !isReady, monotonicNanoseconds() >= stepDeadline else { return }
    guard case .connecting = phase, !addresses.isEmpty else { throw .timedOut }
    try connectToNext(SocketError(errno: ETIMEDOUT))
  }

  private func connectToNext(_ error: SocketError) throws(RemoteError) {
    var error = error
    socket = nil
    while let address = addresses.popFirst() {
      let now = monotonicNanoseconds()
      let rest = readyDeadline > now ? readyDeadline - now : 0
      stepDeadline =
        addresses.isEmpty ? readyDeadline : now + rest / UInt64(addresses.count + 1)
      do throws(SocketError) {
        socket = try Socket.connecting(to: address)
        return
      } catch let refused { error = refused }
    }
    throw .unreachable(errno: error.errno)
  }

  private func greet() {
    wantsWriteToRead = false
    if greetings.isEmpty {
      phase = .ready
    } else {
      phase = .greeting
      let greeter = Greeter(count: greetings.count)
      self.greeter = greeter
      for greeting in greetings { output.append(greeting) }
    }
  }

  // MARK: Sending

  private func flush() throws(RemoteError) {
    let end = output.byteCount - Self.turnByteCount
    while !output.isEmpty, output.byteCount > end {
      guard try sendSome() else { return }
    }
  }

  /// False when nothing fits for now.
  private func sendSome() throws(RemoteError) -> Bool {
    var failure: RemoteError?
    wantsReadToWrite = false
    let count = unsafe output.send { parts in
      do throws(RemoteError) { return unsafe try send(parts) } catch {
        failure = error
        return 0
      }
    }
    if let failure { throw failure }
    return count > 0
  }

  private func send(_ parts: UnsafeMutableBufferPointer<iovec>) throws(RemoteError) -> Int {
    if secure == nil {
      do throws(SocketError) { return try unsafe socket?.send(parts) ?? 0 } catch {
        throw .unreachable(errno: error.errno)
      }
    }
    guard let part = unsafe parts.first else { return 0 }
    let bytes = unsafe UnsafeRawBufferPointer(start: part.iov_base, count: part.iov_len)
    switch try unsafe secure?.write(bytes) {
    case .done(let byteCount): return byteCount
    case .wantsRead:
      wantsReadToWrite = true
      return 0
    default: return 0
    }
  }

  // MARK: Receiving

  /// So many bytes are sent or received before others have their turn.
  private static let turnByteCount = 4 << 20

  private func receive(_ receiver: any ReplyReceiver) throws(RemoteError) {
    let end = receivedByteCount + Self.turnByteCount
    // What OpenSSL holds back, `poll` does not tell.
    hasMore = true
    while receivedByteCount < end, hasMore {
      try parse(receiver)
      hasMore = try receiveSome(isOfBulk: (greeter ?? receiver).expectsBulk)
    }
    try parse(receiver)
  }

  /// Takes what lies in `input`.
  private func parse(_ receiver: any ReplyReceiver) throws(RemoteError) {
    while true {
      if unsafe bulk != nil {
        guard takeBulkFromInput() else { return }
        parser.bulkWasTaken()
      }
      guard !inputRange.isEmpty else { return }
      var offset = inputRange.lowerBound
      let step: ReplyParser.Step
      let current: any ReplyReceiver = greeter ?? receiver
      do throws(ReplyParser.Violation) {
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: input[..<inputRange.upperBound])
        step = try unsafe parser.step(bytes.bytes, from: &offset, lendsBulk: current.expectsBulk)
      } catch { throw .protocolViolation(error.reason) }
      inputRange = offset..<inputRange.upperBound
      switch step {
      case .more: continue
      case .bulk(let byteCount):
        unsafe bulk = (nil, byteCount, byteCount)
        if let memory = unsafe current.memory(byteCount: byteCount), memory.count >= byteCount {
          unsafe bulk?.memory = UnsafeMutableRawBufferPointer(rebasing: memory[..<byteCount])
        }
        lentByteCount = byteCount
        lentIsKept = unsafe bulk?.memory != nil
      case .reply(let reply):
        try current.receive(reply, byteCount: lentByteCount, wasKept: lentIsKept)
        if greeter?.isDone == true {
          greeter = nil
          phase = .ready
        }
      }
    }
  }

  private var lentByteCount = 0
  private var lentIsKept = false

  /// True when the string is whole.
  private func takeBulkFromInput() -> Bool {
    guard let (memory, byteCount, before) = unsafe bulk else { return true }
    var missing = before
    let count = min(missing, inputRange.count)
    if count > 0, let memory = unsafe memory {
      let start = byteCount - missing
      let source = unsafe UnsafeRawBufferPointer(
        rebasing: input[inputRange.lowerBound..<inputRange.lowerBound + count]
      )
      unsafe UnsafeMutableRawBufferPointer(rebasing: memory[start...]).copyMemory(from: source)
    }
    inputRange = inputRange.lowerBound + count..<inputRange.upperBound
    missing -= count
    unsafe bulk = missing == 0 ? nil : (memory, byteCount, missing)
    return missing == 0
  }

  /// So much is received to see how long a string is; the rest goes to its memory at once.
  private static let headByteCount = 256

  /// Receives into the string's memory first, then into `input`, which is empty; false when nothing more is there for now.
  private func receiveSome(isOfBulk: Bool) throws(RemoteError) -> Bool {
    if inputRange.isEmpty { inputRange = 0..<0 }
    guard unsafe inputRange.upperBound < input.count else { return true }
    var free = unsafe UnsafeMutableRawBufferPointer(rebasing: input[inputRange.upperBound...])
    var target: UnsafeMutableRawBufferPointer? = nil
    if let (memory, byteCount, missing) = unsafe bulk, let memory = unsafe memory {
      unsafe target = UnsafeMutableRawBufferPointer(rebasing: memory[(byteCount - missing)...])
    }
    if isOfBulk, unsafe bulk == nil || bulk?.memory != nil {
      unsafe free = UnsafeMutableRawBufferPointer(rebasing: free.prefix(Self.headByteCount))
    }
    guard let count = try unsafe receive(into: target, then: free) else { return false }
    // Less than there was room for: the socket is empty. Records of TLS end anywhere.
    let isAll = unsafe secure == nil && count < (target?.count ?? 0) + free.count
    receivedByteCount += count
    var rest = count
    if let target = unsafe target {
      let taken = min(rest, target.count)
      rest -= taken
      unsafe bulk?.missing -= taken
    }
    inputRange = inputRange.lowerBound..<inputRange.upperBound + rest
    return !isAll
  }

  private func receive(
    into target: UnsafeMutableRawBufferPointer?,
    then free: UnsafeMutableRawBufferPointer
  ) throws(RemoteError) -> Int? {
    guard secure != nil else {
      var count: Int?
      var failure: SocketError?
      unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { parts in
        var partCount = 0
        for index in 0..<2 {
          guard let part = unsafe index == 0 ? target : free else { continue }
          unsafe parts.initializeElement(
            at: partCount,
            to: iovec(iov_base: part.baseAddress, iov_len: part.count)
          )
          partCount += 1
        }
        do throws(SocketError) {
          count = try unsafe socket?.receive(
            UnsafeMutableBufferPointer(rebasing: parts[..<partCount])
          )
        } catch { failure = error }
      }
      if let failure { throw .unreachable(errno: failure.errno) }
      return count
    }
    wantsWriteToRead = false
    switch try unsafe secure?.read(into: target ?? free) {
    case .done(let byteCount): return byteCount
    case .wantsWrite:
      wantsWriteToRead = true
      return nil
    default: return nil
    }
  }
}

/// Hears the replies to AUTH and SELECT: all of them have to be OK.
private final class Greeter: ReplyReceiver {
  private var missingCount: Int

  init(count: Int) { missingCount = count }

  var isDone: Bool { missingCount == 0 }
  var expectsBulk: Bool { false }
  func memory(byteCount: Int) -> UnsafeMutableRawBufferPointer? { nil }

  func receive(_ reply: Reply, byteCount: Int, wasKept: Bool) throws(RemoteError) {
    missingCount -= 1
    switch reply {
    case .error(let error): throw error.remoteError
    case .text: return
    default: throw .protocolViolation("the greeting has an answer of another type")
    }
  }
}

/// What all connections of a client share.
struct ConnectionSettings: Sendable {
  let tls: TLSContext?
  /// Commands that are sent first; each has to be answered with OK.
  ///
  /// They hold the password: not for logs.
  ///
  /// A closure, into which no dump looks.
  let greetings: @Sendable () -> [[UInt8]]
  let connectNanoseconds: UInt64
}
