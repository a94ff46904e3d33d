internal import KVCore

/// Row `erase` of `meta`: u64 slots whose purged payload is still to be overwritten, about; absent = none.
struct EraseRow {
  var slotCount: UInt64

  init(slotCount: UInt64) { self.slotCount = slotCount }

  init(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    // Never more than there can be slots.
    slotCount = min(reader.read(UInt64.self) ?? 0, 1 << 62)
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 8)
    writer.append(slotCount)
    return writer.bytes
  }
}
