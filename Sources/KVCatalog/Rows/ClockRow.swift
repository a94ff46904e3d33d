internal import KVCore

/// Row `clock` of `meta`: u64 last committed time, u64 idle deadlines before this time do not count.
struct ClockRow {
  /// Unix nanoseconds.
  var committed: UInt64 = 0
  var idleSuspension: UInt64 = 0

  init(committed: UInt64 = 0, idleSuspension: UInt64 = 0) {
    self.committed = committed
    self.idleSuspension = idleSuspension
  }

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let committed = reader.read(UInt64.self), committed < 1 << 63,
      let idleSuspension = reader.read(UInt64.self)
    else { return nil }
    self.init(committed: committed, idleSuspension: idleSuspension)
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 16)
    writer.append(committed)
    writer.append(idleSuspension)
    return writer.bytes
  }
}
