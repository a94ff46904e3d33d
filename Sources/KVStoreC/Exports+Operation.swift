public import CKVStore
internal import KVCore
internal import KVStore

/// See kvstore.h.
@_cdecl("kvstore_restore_start")
public func exportRestoreStart(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transfer: UnsafePointer<kvstore_transfer_t>?,
  _ operationOut: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  unsafe start(namespace, prompt, transfer, operationOut) {
    (namespace, prompt, transfer) throws(StoreError) in
    try unsafe namespace.startRestore(prompt, transfer)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_offload_start")
public func exportOffloadStart(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transfer: UnsafePointer<kvstore_transfer_t>?,
  _ operationOut: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  unsafe start(namespace, prompt, transfer, operationOut) {
    (namespace, prompt, transfer) throws(StoreError) in
    try unsafe namespace.startOffload(prompt, transfer)
  }
}

private func start(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ transfer: UnsafePointer<kvstore_transfer_t>?,
  _ operationOut: UnsafeMutablePointer<OpaquePointer?>?,
  _ work: (Namespace, Prompt, Transfer) throws(StoreError) -> TransferOperation
) -> Int32 {
  guard let operationOut = unsafe operationOut else { return fail(.invalidArgument(.null)) }
  unsafe operationOut.pointee = nil
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    let (transfer, blockStatus) = try unsafe transferArgument(transfer)
    let operation = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try work(namespace, prompt, transfer)
    }
    unsafe operationOut.pointee = HandleTable.insert(
      unsafe Operation(operation, of: namespace, blockStatus),
      kind: .operation
    )
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_poll")
public func exportPoll(
  _ operation: OpaquePointer?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  unsafe report(operation, result) { (operation) throws(StoreError) in try operation.poll() }
}

/// See kvstore.h.
@_cdecl("kvstore_wait")
public func exportWait(
  _ operation: OpaquePointer?,
  _ timeoutNanoseconds: UInt64,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?
) -> Int32 {
  unsafe report(operation, result) { (operation) throws(StoreError) in
    try operation.wait(timeoutNanoseconds: timeoutNanoseconds)
  }
}

/// Reports an operation's end once, and frees its handle with that.
private func report(
  _ handle: OpaquePointer?,
  _ result: UnsafeMutablePointer<kvstore_transfer_result_t>?,
  _ look: (TransferOperation) throws(StoreError) -> TransferResult?
) -> Int32 {
  guard let open = unsafe HandleTable.operation(handle) else {
    return unsafe failBadHandle(handle, "operation")
  }
  do throws(StoreError) {
    // Checked first, so that a bad struct does not lose the end.
    try unsafe clearResult(result)
  } catch {
    return fail(error)
  }
  do throws(StoreError) {
    guard let moved = try look(open.operation) else { return Status.running }
    // Of two threads that look at once, one reports it.
    guard unsafe HandleTable.remove(handle, kind: .operation) != nil else {
      return unsafe failBadHandle(handle, "operation")
    }
    return try unsafe answer(moved, open.blockStatus, result)
  } catch {
    // In a forked child the handle stays the parent's.
    if error != .forked, unsafe HandleTable.remove(handle, kind: .operation) == nil {
      return unsafe failBadHandle(handle, "operation")
    }
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_cancel")
public func exportCancel(_ operation: OpaquePointer?) -> Int32 {
  guard let open = unsafe HandleTable.operation(operation) else {
    return unsafe failBadHandle(operation, "operation")
  }
  guard !open.operation.isForked else { return fail(.forked) }
  open.operation.cancel()
  return Status.ok
}
