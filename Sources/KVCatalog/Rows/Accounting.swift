internal import KVCore

/// What a namespace holds.
///
/// Row of kind 1 in `namespaces`: u64 blocks, u64 payload bytes, u64 stored bytes.
package struct Accounting: Sendable, Equatable {
  package var blockCount: UInt64 = 0
  package var payloadByteCount: UInt64 = 0
  package var storedByteCount: UInt64 = 0
  package init() {}

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let blockCount = reader.read(UInt64.self), let payload = reader.read(UInt64.self),
      let stored = reader.read(UInt64.self),
      // More than any disk holds is damage, and adding to it would trap.
      max(blockCount, payload, stored) < 1 << 62
    else { return nil }
    self.blockCount = blockCount
    payloadByteCount = payload
    storedByteCount = stored
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 24)
    writer.append(blockCount)
    writer.append(payloadByteCount)
    writer.append(storedByteCount)
    return writer.bytes
  }
}
