internal import KVCore

extension Store {
  /// What is lent through this handle.
  struct Lent {
    var views: [ObjectIdentifier: BlockView] = [:]
    var reservations: [ObjectIdentifier: OffloadReservation] = [:]
    /// No more is lent.
    var isClosed = false
  }

  func remember(_ view: BlockView) throws(StoreError) {
    let isOpen = lent.withLock { lent in
      guard !lent.isClosed else { return false }
      lent.views[ObjectIdentifier(view)] = view
      return true
    }
    guard isOpen else { throw .closed }
  }

  func remember(_ reservation: OffloadReservation) throws(StoreError) {
    let isOpen = lent.withLock { lent in
      guard !lent.isClosed else { return false }
      lent.reservations[ObjectIdentifier(reservation)] = reservation
      return true
    }
    guard isOpen else { throw .closed }
  }

  func forget(_ view: BlockView) {
    lent.withLock { _ = $0.views.removeValue(forKey: ObjectIdentifier(view)) }
  }

  func forget(_ reservation: OffloadReservation) {
    lent.withLock { _ = $0.reservations.removeValue(forKey: ObjectIdentifier(reservation)) }
  }

  /// Takes everything back that is lent.
  func endLoans() {
    let (views, reservations) = lent.withLock { lent in
      lent.isClosed = true
      return (Array(lent.views.values), Array(lent.reservations.values))
    }
    for view in views { view.release() }
    for reservation in reservations { reservation.abort() }
  }
}
