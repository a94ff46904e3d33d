public import CKVStore
internal import KVCore
internal import KVStore

/// See kvstore.h.
@_cdecl("kvstore_events_read")
public func exportEventsRead(
  _ store: OpaquePointer?,
  _ cursor: UnsafeMutablePointer<UInt64>?,
  _ events: UnsafeMutablePointer<kvstore_event_t>?,
  _ eventSize: Int,
  _ capacity: Int,
  _ countOut: UnsafeMutablePointer<Int>?
) -> Int32 {
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  guard let cursor = unsafe cursor, let countOut = unsafe countOut,
    unsafe events != nil || capacity == 0
  else { return fail(.invalidArgument(.null)) }
  guard eventSize == MemoryLayout<kvstore_event_t>.size else {
    return fail(.invalidArgument(.structSize))
  }
  do throws(StoreError) {
    // size_t comes as Int: what is beyond its range is room enough.
    let limit = capacity < 0 ? Int.max : capacity
    let page = try store.events(after: unsafe cursor.pointee, limit: limit)
    if let events = unsafe events {
      for (index, event) in page.events.enumerated() {
        unsafe events[index] = kvstore_event_t(
          sequence: event.sequence,
          time_nanoseconds: event.timeNanoseconds,
          kind: event.kind.rawValue,
          reason: event.reason.rawValue,
          tier: UInt32(event.tier.rawValue),
          namespace_id: event.namespace.rawValue,
          run: event.run.rawValue,
          first_position: event.firstPosition,
          block_count: event.blockCount,
          owner: event.owner,
          reserved: 0
        )
      }
    }
    unsafe countOut.pointee = page.events.count
    unsafe cursor.pointee = page.cursor
    return page.isLapped ? Status.lapped : Status.ok
  } catch {
    return fail(error)
  }
}
