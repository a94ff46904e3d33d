internal import Glibc

/// A thread of the library's own: all signals blocked, since the host's handlers are not to run on it.
@safe package final class ServiceThread: @unchecked Sendable {
  private let id: pthread_t

  private init(_ id: pthread_t) { self.id = id }

  /// Keeps the body alive until the thread has taken it.
  private final class Body {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  /// Starts a thread; nil when the system gives none.
  ///
  /// `join` or `detach` must follow.
  package static func start(_ body: @escaping @Sendable () -> Void) -> ServiceThread? {
    var all = sigset_t()
    var before = sigset_t()
    unsafe sigfillset(&all)
    // The new thread inherits the mask of the one that makes it.
    unsafe pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }
    var id = pthread_t()
    let argument = unsafe Unmanaged.passRetained(Body(body)).toOpaque()
    let code = unsafe pthread_create(
      &id,
      nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      },
      argument
    )
    guard code == 0 else {
      unsafe Unmanaged<Body>.fromOpaque(argument).release()
      return nil
    }
    return ServiceThread(id)
  }

  /// Waits until its body has returned.
  package func join() { pthread_join(id, nil) }

  /// Lets it end by itself; nothing that it uses may be torn down before.
  package func detach() { pthread_detach(id) }
}
