public import CKVStore
internal import KVCore
internal import KVStore

/// See kvstore.h.
@_cdecl("kvstore_lease_release")
public func exportLeaseRelease(_ store: OpaquePointer?, _ lease: UInt64) -> Int32 {
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  do throws(StoreError) {
    // What a miss gives as its lease.
    if lease == 0 { return Status.ok }
    return try store.releaseLease(lease)
      ? Status.ok : fail(Status.badHandle, "there never was a lease of this id")
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_lease_extend")
public func exportLeaseExtend(
  _ store: OpaquePointer?,
  _ lease: UInt64,
  _ leaseNanoseconds: UInt64
) -> Int32 {
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  do throws(StoreError) {
    guard leaseNanoseconds <= Namespace.leaseNanosecondsMax else {
      throw .invalidArgument(.leaseDuration)
    }
    return try store.extendLease(lease, nanoseconds: leaseNanoseconds) ? Status.ok : Status.miss
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_touch")
public func exportTouch(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  unsafe keep(namespace, prompt, blocksOut) { (namespace, prompt) throws(StoreError) in
    try namespace.touch(prompt)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_forget")
public func exportForget(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  unsafe keep(namespace, prompt, blocksOut) { (namespace, prompt) throws(StoreError) in
    try namespace.forget(prompt)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_purge")
public func exportPurge(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ flags: UInt32,
  _ blocksOut: UnsafeMutablePointer<UInt64>?
) -> Int32 {
  guard flags & ~UInt32(KVSTORE_PURGE_TAIL) == 0 else { return fail(.invalidArgument(.flags)) }
  return unsafe keep(namespace, prompt, blocksOut) { (namespace, prompt) throws(StoreError) in
    try namespace.purge(prompt, onlyTail: flags & UInt32(KVSTORE_PURGE_TAIL) != 0)
  }
}

private func keep(
  _ namespace: OpaquePointer?,
  _ prompt: UnsafePointer<kvstore_prompt_t>?,
  _ blocksOut: UnsafeMutablePointer<UInt64>?,
  _ work: (Namespace, Prompt) throws(StoreError) -> Int
) -> Int32 {
  guard let namespace = unsafe HandleTable.namespace(namespace) else {
    return unsafe failBadHandle(namespace, "namespace")
  }
  do throws(StoreError) {
    let count = try unsafe withPrompt(prompt, in: namespace) { (prompt) throws(StoreError) in
      try work(namespace, prompt)
    }
    if let blocksOut = unsafe blocksOut { unsafe blocksOut.pointee = UInt64(count) }
    return count == 0 ? Status.miss : Status.ok
  } catch {
    return fail(error)
  }
}
