public import CKVStore
internal import KVCore
internal import KVStore

/// See kvstore.h.
@_cdecl("kvstore_pin")
public func exportPin(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ pinNanoseconds: UInt64,
  _ pinOut: UnsafeMutablePointer<UInt64>?,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  guard let pinOut = unsafe pinOut else { return fail(.invalidArgument(.null)) }
  unsafe pinOut.pointee = 0
  if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = 0 }
  do throws(StoreError) {
    let pin = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try namespace.pin(prompt, nanoseconds: pinNanoseconds)
    }
    guard let pin else { return Status.miss }
    unsafe pinOut.pointee = pin.id
    if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = UInt64(pin.blockCount) }
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_unpin")
public func exportUnpin(_ store: OpaquePointer?, _ pin: UInt64) -> Int32 {
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  do throws(StoreError) {
    return try store.unpin(pin) ? Status.ok : Status.miss
  } catch {
    return fail(error)
  }
}
