internal import Glibc

/// A TCP socket that never waits.
///
/// Unsafe: system calls on memory that the caller lends.
@safe struct Socket: ~Copyable {
  let number: Int32

  /// Begins to connect; `isConnected` says later how it went.
  ///
  /// - Throws: the system's error number.
  static func connecting(to address: SocketAddress) throws(SocketError) -> Socket {
    let number = Glibc.socket(
      address.family,
      Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue),
      0
    )
    guard number >= 0 else { throw SocketError(errno: errno) }
    let socket = Socket(number: number)
    var yes: Int32 = 1
    // Requests go out as they are written.
    unsafe setsockopt(
      number,
      Int32(IPPROTO_TCP),
      TCP_NODELAY,
      &yes,
      socklen_t(MemoryLayout<Int32>.size)
    )
    unsafe setsockopt(number, SOL_SOCKET, SO_KEEPALIVE, &yes, socklen_t(MemoryLayout<Int32>.size))
    let code = unsafe address.bytes.withUnsafeBytes { bytes in
      unsafe connect(
        number,
        bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self),
        socklen_t(bytes.count)
      )
    }
    if code != 0, errno != EINPROGRESS, errno != EINTR { throw SocketError(errno: errno) }
    return socket
  }

  private init(number: Int32) { self.number = number }

  deinit { close(number) }

  /// How connecting went, once the socket can be written to.
  func checkConnected() throws(SocketError) {
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    guard unsafe getsockopt(number, SOL_SOCKET, SO_ERROR, &code, &length) == 0 else {
      throw SocketError(errno: errno)
    }
    if code != 0 { throw SocketError(errno: code) }
  }

  /// Sends what fits; nil when nothing does for now.
  func send(_ parts: UnsafeMutableBufferPointer<iovec>) throws(SocketError) -> Int? {
    var message = unsafe msghdr()
    unsafe message.msg_iov = parts.baseAddress
    unsafe message.msg_iovlen = parts.count
    while true {
      let count = unsafe sendmsg(number, &message, Int32(MSG_NOSIGNAL))
      if count >= 0 { return count }
      if errno == EAGAIN || errno == EWOULDBLOCK { return nil }
      guard errno == EINTR else { throw SocketError(errno: errno) }
    }
  }

  /// Receives what there is; nil when there is nothing for now.
  ///
  /// - Throws: also at the end of the stream (`isEnd`).
  func receive(_ parts: UnsafeMutableBufferPointer<iovec>) throws(SocketError) -> Int? {
    var message = unsafe msghdr()
    unsafe message.msg_iov = parts.baseAddress
    unsafe message.msg_iovlen = parts.count
    while true {
      let count = unsafe recvmsg(number, &message, 0)
      if count > 0 { return count }
      if count == 0 { throw .end }
      if errno == EAGAIN || errno == EWOULDBLOCK { return nil }
      guard errno == EINTR else { throw SocketError(errno: errno) }
    }
  }

  /// Whether nothing came and the other side did not hang up: what an idle connection should look like.
  var isQuiet: Bool {
    var entry = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&entry, 1, 0) == 0
  }
}

/// Why a connection cannot go on.
struct SocketError: Error, Equatable {
  let errno: Int32

  /// The other side closed it.
  static let end = SocketError(errno: ECONNRESET)
}
