import KVCore

/// Starts a thread that ends by itself.
func startThread(_ body: @escaping @Sendable () -> Void) throws {
  guard let thread = ServiceThread.start(body) else {
    throw CommandFailure("the system gives no more threads")
  }
  thread.detach()
}
