internal import CKVStore
internal import KVCore
internal import KVStore

/// See kvstore.h.
@_cdecl("kvstore_metrics_text")
public func exportMetricsText(
  _ store: OpaquePointer?,
  _ text: UnsafeMutablePointer<CChar>?,
  _ capacity: Int,
  _ lengthOut: UnsafeMutablePointer<Int>?
) -> Int32 {
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  guard let lengthOut = unsafe lengthOut, unsafe text != nil || capacity == 0 else {
    return fail(.invalidArgument(.null))
  }
  do throws(StoreError) {
    let page = Array(try store.metricsText().utf8)
    unsafe lengthOut.pointee = page.count
    // size_t comes as Int: what is beyond its range is room enough.
    let room = capacity < 0 ? Int.max : capacity
    guard page.count < room, let text = unsafe text else {
      return fail(Status.bufferTooSmall, "the text takes \(page.count + 1) bytes")
    }
    let destination = UnsafeMutableRawPointer(text)
    unsafe page.span.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress {
        unsafe destination.copyMemory(from: base, byteCount: bytes.count)
      }
    }
    unsafe destination.storeBytes(of: 0, toByteOffset: page.count, as: UInt8.self)
    return Status.ok
  } catch {
    return fail(error)
  }
}
