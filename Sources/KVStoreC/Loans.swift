internal import KVStore

/// What a view handle stands for.
final class View: StoreOwned, Sendable {
  let view: BlockView
  private let namespace: Namespace

  init(_ view: BlockView, of namespace: Namespace) {
    self.view = view
    self.namespace = namespace
  }

  func belongs(to store: Store) -> Bool { namespace.belongs(to: store) }
}

/// What a reservation handle stands for, and which blocks of the prompt its spans are of.
final class Reservation: StoreOwned, Sendable {
  let reservation: OffloadReservation
  let firstBlock: Int
  let namespace: Namespace

  init(_ reservation: OffloadReservation, firstBlock: Int, of namespace: Namespace) {
    self.reservation = reservation
    self.firstBlock = firstBlock
    self.namespace = namespace
  }

  func belongs(to store: Store) -> Bool { namespace.belongs(to: store) }
}
