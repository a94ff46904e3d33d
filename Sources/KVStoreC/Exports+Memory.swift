internal import CKVStore
internal import KVCore
internal import KVStore

/// See kvstore.h.
@_cdecl("kvstore_host_memory")
public func exportHostMemory(
  _ store: OpaquePointer?,
  _ base: UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
  _ byteCount: UnsafeMutablePointer<Int>?
) -> Int32 {
  guard let base = unsafe base, let byteCount = unsafe byteCount else {
    return fail(.invalidArgument(.null))
  }
  unsafe base.pointee = nil
  unsafe byteCount.pointee = 0
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  do throws(StoreError) {
    let memory = try unsafe store.hostMemory()
    unsafe base.pointee = memory.baseAddress
    unsafe byteCount.pointee = memory.count
    return Status.ok
  } catch {
    return fail(error)
  }
}
