internal import Glibc
internal import KVRemote

/// How servers are to prove who they are, and how this client does.
///
/// Unsafe: an object of OpenSSL's, which may be shared among threads.
@safe final class TLSContext: @unchecked Sendable {
  let library: OpenSSL
  let context: OpenSSL.Object
  let verifiesServer: Bool

  /// - Throws: `insecure`, with what is missing.
  init(_ settings: RedisConfiguration.TLS) throws(RemoteError) {
    guard let library = OpenSSL.shared else {
      throw .insecure("TLS needs OpenSSL 3, and libssl.so.3 does not load here")
    }
    guard let context = unsafe library.newContext(library.clientMethod()) else {
      throw .insecure("OpenSSL gives no context")
    }
    self.library = library
    unsafe self.context = context
    verifiesServer = settings.verifiesServer
    // SSL_CTRL_SET_MIN_PROTO_VERSION, TLS 1.2.
    _ = unsafe library.controlContext(context, 123, 0x0303, nil)
    // SSL_CTRL_MODE: partial writes, from a buffer that may have moved.
    _ = unsafe library.controlContext(context, 33, 0x1 | 0x2, nil)
    // SSL_VERIFY_PEER
    unsafe library.setVerification(context, verifiesServer ? 1 : 0, nil)
    if let file = settings.certificateAuthorityFile {
      guard unsafe library.loadCertificates(context, file) == 1 else {
        throw .insecure("the CA file cannot be read or has no certificate")
      }
    } else if verifiesServer {
      guard unsafe library.useSystemCertificates(context) == 1 else {
        throw .insecure("the system's CA certificates cannot be read")
      }
    }
    if let file = settings.certificateFile {
      // SSL_FILETYPE_PEM
      guard unsafe library.useCertificateChain(context, file) == 1,
        unsafe library.usePrivateKey(context, settings.keyFile ?? file, 1) == 1
      else {
        throw .insecure(
          "the client's certificate or its key cannot be read, or they do not belong together"
        )
      }
    }
  }

  deinit { unsafe library.freeContext(context) }
}

/// An encrypted connection on a socket that never waits.
///
/// Unsafe: an object of OpenSSL's, used by one thread at a time.
@safe struct TLSSession: ~Copyable {
  private let context: TLSContext
  private let session: OpenSSL.Object

  /// What a call came to.
  enum Progress: Equatable {
    case done(byteCount: Int)
    case wantsRead
    case wantsWrite
  }

  /// A session that checks the server for the name or address by which it is called.
  static func made(
    _ context: TLSContext,
    socket: Int32,
    host: String
  ) throws(RemoteError) -> TLSSession {
    let library = context.library
    guard let session = unsafe library.newSession(context.context) else {
      throw .insecure("OpenSSL gives no session")
    }
    let made = unsafe TLSSession(context, session)
    let isAddress = !SocketAddress.resolve(host, port: 1, isNumeric: true).isEmpty
    var isSet = unsafe library.setDescriptor(session, socket) == 1
    if isAddress {
      isSet = unsafe isSet && library.setAddress(library.parameters(session), host) == 1
    } else {
      isSet = unsafe isSet && library.setHost(session, host) == 1
      // SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name
      var name = Array(host.utf8CString)
      isSet = unsafe name.withUnsafeMutableBytes { bytes in
        unsafe isSet && library.controlSession(session, 55, 0, bytes.baseAddress) == 1
      }
    }
    guard isSet else { throw .insecure("the server's name cannot be checked") }
    return made
  }

  private init(_ context: TLSContext, _ session: OpenSSL.Object) {
    self.context = context
    unsafe self.session = session
  }

  deinit { unsafe context.library.freeSession(session) }

  /// Goes on with the handshake.
  func connect() throws(RemoteError) -> Progress {
    try call { unsafe context.library.connect(session) }
  }

  func read(into bytes: UnsafeMutableRawBufferPointer) throws(RemoteError) -> Progress {
    try call {
      unsafe context.library.read(session, bytes.baseAddress, Int32(clamping: bytes.count))
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer) throws(RemoteError) -> Progress {
    try call {
      unsafe context.library.write(session, bytes.baseAddress, Int32(clamping: bytes.count))
    }
  }

  private func call(_ body: () -> Int32) throws(RemoteError) -> Progress {
    // OpenSSL writes without MSG_NOSIGNAL: a connection that the other side closed would end the host.
    var pipe = sigset_t()
    var before = sigset_t()
    unsafe sigemptyset(&pipe)
    unsafe sigaddset(&pipe, SIGPIPE)
    unsafe pthread_sigmask(SIG_BLOCK, &pipe, &before)
    context.library.clearErrors()
    errno = 0
    let code = body()
    let reason = errno
    if code <= 0, reason == EPIPE {
      var atOnce = timespec()
      _ = unsafe sigtimedwait(&pipe, nil, &atOnce)
    }
    unsafe pthread_sigmask(SIG_SETMASK, &before, nil)
    if code > 0 { return .done(byteCount: Int(code)) }
    switch unsafe context.library.error(session, code) {
    case 2: return .wantsRead
    case 3: return .wantsWrite
    // SSL_ERROR_ZERO_RETURN
    case 6: throw .unreachable(errno: ECONNRESET)
    // SSL_ERROR_SYSCALL
    case 5: throw .unreachable(errno: reason == 0 ? ECONNRESET : reason)
    default:
      let result = unsafe context.library.verifyResult(session)
      if context.verifiesServer, result != 0 { throw .insecure(Self.words(result)) }
      // A reset in the middle of a record as well as a server that speaks no TLS.
      throw .protocolViolation("TLS failed")
    }
  }

  /// What X509_verify_cert found (openssl/x509_vfy.h).
  private static func words(_ result: Int) -> String {
    switch result {
    case 10: "the server's certificate has expired"
    case 9: "the server's certificate is not valid yet"
    case 18, 19, 20, 21: "the server's certificate is not of a CA that the settings trust"
    case 62: "the server's certificate is for another name"
    case 64: "the server's certificate is for another address"
    default: "the server's certificate is refused (X509_V_ERR \(result))"
    }
  }
}
