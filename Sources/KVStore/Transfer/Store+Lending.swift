internal import KVCore

/// Arena memory that is lent through a handle of the store.
protocol Loan: AnyObject, Sendable {
  /// Takes it back; later calls do nothing.
  func end()
}

extension BlockView: Loan {
  func end() { release() }
}

extension OffloadReservation: Loan {
  func end() { abort() }
}

extension Store {
  /// What is lent through this handle.
  struct Lent {
    var loans: [ObjectIdentifier: any Loan] = [:]
    /// No more is lent.
    var isClosed = false
  }

  /// Ends the loan with the handle; at once when that is closed.
  func remember(_ loan: any Loan) throws(StoreError) {
    let isOpen = lent.withLock { lent in
      guard !lent.isClosed else { return false }
      lent.loans[ObjectIdentifier(loan)] = loan
      return true
    }
    guard isOpen else {
      loan.end()
      throw .closed
    }
  }

  func forget(_ loan: any Loan) {
    lent.withLock { _ = $0.loans.removeValue(forKey: ObjectIdentifier(loan)) }
  }

  /// Takes everything back that is lent.
  func endLoans() {
    let loans = lent.withLock { lent in
      lent.isClosed = true
      return Array(lent.loans.values)
    }
    for loan in loans { loan.end() }
  }
}
