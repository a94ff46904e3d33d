internal import Glibc
internal import KVRemote

// Unsafe: functions of a C library that is opened while the program runs, and its objects.

/// OpenSSL 3, opened only when a connection is to be encrypted: the library links nothing of it.
///
/// Constants are those of `openssl/ssl.h`, which OpenSSL keeps as part of its binary interface.
@safe struct OpenSSL: @unchecked Sendable {
  typealias Object = OpaquePointer

  let newContext: @convention(c) (Object?) -> Object?
  let clientMethod: @convention(c) () -> Object?
  let freeContext: @convention(c) (Object?) -> Void
  let controlContext: @convention(c) (Object?, Int32, Int, UnsafeMutableRawPointer?) -> Int
  let setVerification: @convention(c) (Object?, Int32, UnsafeMutableRawPointer?) -> Void
  let useSystemCertificates: @convention(c) (Object?) -> Int32
  let loadCertificates: @convention(c) (Object?, UnsafePointer<CChar>?) -> Int32
  let useCertificateChain: @convention(c) (Object?, UnsafePointer<CChar>?) -> Int32
  let usePrivateKey: @convention(c) (Object?, UnsafePointer<CChar>?, Int32) -> Int32
  let newSession: @convention(c) (Object?) -> Object?
  let freeSession: @convention(c) (Object?) -> Void
  let setDescriptor: @convention(c) (Object?, Int32) -> Int32
  let controlSession: @convention(c) (Object?, Int32, Int, UnsafeMutableRawPointer?) -> Int
  let setHost: @convention(c) (Object?, UnsafePointer<CChar>?) -> Int32
  let parameters: @convention(c) (Object?) -> Object?
  let setAddress: @convention(c) (Object?, UnsafePointer<CChar>?) -> Int32
  let connect: @convention(c) (Object?) -> Int32
  let read: @convention(c) (Object?, UnsafeMutableRawPointer?, Int32) -> Int32
  let write: @convention(c) (Object?, UnsafeRawPointer?, Int32) -> Int32
  let error: @convention(c) (Object?, Int32) -> Int32
  let verifyResult: @convention(c) (Object?) -> Int
  let clearErrors: @convention(c) () -> Void

  /// Opened at most once; nil where there is none.
  static let shared = opened()

  private struct Missing: Error {}

  private static func opened() -> OpenSSL? {
    guard let library = unsafe dlopen("libssl.so.3", RTLD_NOW | RTLD_LOCAL) else { return nil }
    do throws(Missing) { return unsafe try OpenSSL(library) } catch { return nil }
  }

  private init(_ library: UnsafeMutableRawPointer) throws(Missing) {
    // dlsym also looks into what the library depends on: libcrypto.
    func find<Function>(_ name: String) throws(Missing) -> Function {
      guard let address = unsafe dlsym(library, name) else { throw Missing() }
      return unsafe unsafeBitCast(address, to: Function.self)
    }
    typealias Initialize = @convention(c) (UInt64, OpaquePointer?) -> Int32
    let initialize: Initialize = unsafe try find("OPENSSL_init_ssl")
    // OPENSSL_INIT_NO_ATEXIT: threads of ours may still be in it when the host ends.
    guard initialize(0x0008_0000, nil) == 1 else { throw Missing() }
    unsafe newContext = try find("SSL_CTX_new")
    unsafe clientMethod = try find("TLS_client_method")
    unsafe freeContext = try find("SSL_CTX_free")
    unsafe controlContext = try find("SSL_CTX_ctrl")
    unsafe setVerification = try find("SSL_CTX_set_verify")
    unsafe useSystemCertificates = try find("SSL_CTX_set_default_verify_paths")
    unsafe loadCertificates = try find("SSL_CTX_load_verify_file")
    unsafe useCertificateChain = try find("SSL_CTX_use_certificate_chain_file")
    unsafe usePrivateKey = try find("SSL_CTX_use_PrivateKey_file")
    unsafe newSession = try find("SSL_new")
    unsafe freeSession = try find("SSL_free")
    unsafe setDescriptor = try find("SSL_set_fd")
    unsafe controlSession = try find("SSL_ctrl")
    unsafe setHost = try find("SSL_set1_host")
    unsafe parameters = try find("SSL_get0_param")
    unsafe setAddress = try find("X509_VERIFY_PARAM_set1_ip_asc")
    unsafe connect = try find("SSL_connect")
    unsafe read = try find("SSL_read")
    unsafe write = try find("SSL_write")
    unsafe error = try find("SSL_get_error")
    unsafe verifyResult = try find("SSL_get_verify_result")
    clearErrors = try find("ERR_clear_error")
  }
}
