internal import KVCore

/// Somebody may write to a namespace: as long as there is one of these, no process removes it, even when it is empty.
///
/// Every handle has one, and whatever goes on when the handle is closed: an operation that runs, a reservation.
final class NamespaceUse: Sendable {
  let core: NamespaceCore
  private let store: StoreCore

  /// Takes over what `StoreCore.hold` noted.
  init(held core: NamespaceCore, _ store: StoreCore) {
    self.core = core
    self.store = store
  }

  deinit { store.endUse(of: core) }
}
