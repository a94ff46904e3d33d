internal import CKVStore
internal import KVCore
internal import KVStore

/// What an operation handle stands for: the operation, and where its statuses go when its end is reported.
///
/// Unchecked: the pointer is the caller's, lent until the end is reported.
@safe final class Operation: StoreOwned, @unchecked Sendable {
  let operation: TransferOperation
  private let namespace: Namespace
  let blockStatus: UnsafeMutablePointer<kvstore_status_t>?

  init(
    _ operation: TransferOperation,
    of namespace: Namespace,
    _ blockStatus: UnsafeMutablePointer<kvstore_status_t>?
  ) {
    self.operation = operation
    self.namespace = namespace
    unsafe self.blockStatus = unsafe blockStatus
  }

  func belongs(to store: Store) -> Bool { namespace.belongs(to: store) }
}
