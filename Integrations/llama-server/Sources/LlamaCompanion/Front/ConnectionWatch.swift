import NIOConcurrencyHelpers
import NIOCore

/// Notices at once when a client goes away, whatever its request is waiting for.
///
/// One for each connection, found by the connection's channel.
final class ConnectionWatch: ChannelInboundHandler, RemovableChannelHandler, @unchecked Sendable {
  // Safe to share: everything that changes is in `state`.
  typealias InboundIn = Any

  private struct State {
    var isClosed = false
    var onClose: (@Sendable () -> Void)?
  }

  private let state = NIOLockedValueBox(State())
  private let registry: Registry

  final class Registry: Sendable {
    private let watches = NIOLockedValueBox<[ObjectIdentifier: ConnectionWatch]>([:])

    func watch(of channel: any Channel) -> ConnectionWatch? {
      watches.withLockedValue { $0[ObjectIdentifier(channel)] }
    }

    fileprivate func add(_ watch: ConnectionWatch, _ channel: any Channel) {
      watches.withLockedValue { $0[ObjectIdentifier(channel)] = watch }
    }

    fileprivate func remove(_ channel: any Channel) {
      watches.withLockedValue { _ = $0.removeValue(forKey: ObjectIdentifier(channel)) }
    }

    var count: Int { watches.withLockedValue { $0.count } }
  }

  init(_ registry: Registry) { self.registry = registry }

  /// Calls this when the client goes away, or now if it is gone; nil ends that.
  func onClose(_ body: (@Sendable () -> Void)?) {
    let isClosed = state.withLockedValue { state in
      state.onClose = body
      return state.isClosed
    }
    if isClosed { body?() }
  }

  private func close() {
    let body = state.withLockedValue { state in
      state.isClosed = true
      defer { state.onClose = nil }
      return state.onClose
    }
    body?()
  }

  func handlerAdded(context: ChannelHandlerContext) { registry.add(self, context.channel) }

  func handlerRemoved(context: ChannelHandlerContext) { registry.remove(context.channel) }

  func channelInactive(context: ChannelHandlerContext) {
    close()
    context.fireChannelInactive()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .some(.inputClosed) = event as? ChannelEvent { close() }
    context.fireUserInboundEventTriggered(event)
  }
}
