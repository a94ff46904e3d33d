internal import KVCore

extension Store {
  func makeOperation(blockCount: Int) -> TransferOperation {
    TransferOperation(core: core, blockCount: blockCount) { [weak self] operation in
      self?.remove(operation)
    }
  }

  /// Lets an operation's transfer be queued; until its end, close knows of it.
  func start(
    _ operation: TransferOperation,
    _ submit: () -> ServicePool.Refusal?
  ) throws(StoreError) {
    let isOpen = operations.withLock { operations in
      // A close that came after this call began has ended all operations, and knows of no more.
      guard !operations.isClosed else { return false }
      operations.running[ObjectIdentifier(operation)] = operation
      return true
    }
    guard isOpen else { throw .closed }
    if let refusal = submit() {
      remove(operation)
      throw StoreError(refusal)
    }
  }

  private func remove(_ operation: TransferOperation) {
    operations.withLock { _ = $0.running.removeValue(forKey: ObjectIdentifier(operation)) }
    operations.notifyAll()
  }

  /// Ends what was started through this handle; afterwards nothing touches the memory that was lent to it.
  ///
  /// Bounded: what has been cancelled waits for no disk.
  func endOperations() {
    let running = operations.withLock { operations in
      operations.isClosed = true
      return Array(operations.running.values)
    }
    for operation in running { operation.cancel() }
    let _: Bool? = operations.wait(until: nil) { $0.running.isEmpty ? true : nil }
  }
}
