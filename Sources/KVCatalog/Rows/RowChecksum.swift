internal import KVCore

/// Every value but those of `keys` begins with the checksum of its row.
let rowChecksumByteCount = 8

/// What follows the checksum; nothing where the value is too short for one.
func rowBody(_ value: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
  unsafe UnsafeRawBufferPointer(rebasing: value.dropFirst(rowChecksumByteCount))
}

/// Whether a row's value begins with the checksum of the rest.
@safe func checksumMatches(
  _ table: Table,
  key: UnsafeRawBufferPointer,
  value: UnsafeRawBufferPointer
) -> Bool {
  guard value.count >= rowChecksumByteCount else { return false }
  let stored = unsafe UInt64(littleEndian: value.loadUnaligned(as: UInt64.self))
  return unsafe stored == rowChecksum(table, key: key, body: rowBody(value))
}

/// XXH3-64 of table tag, key and what follows the checksum.
@safe func rowChecksum(
  _ table: Table,
  key: UnsafeRawBufferPointer,
  body: UnsafeRawBufferPointer
) -> UInt64 {
  // Rows are short: a copy and one call is several times faster than hashing in pieces.
  guard body.count <= 1024 else {
    var tag = table.rawValue
    return unsafe withUnsafeBytes(of: &tag) { xxh3Checksum($0, key, body) }
  }
  let byteCount = 1 + key.count + body.count
  return unsafe withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 8) { buffer in
    unsafe buffer[0] = table.rawValue
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[1...]).copyMemory(from: key)
    if unsafe !body.isEmpty {
      unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[(1 + key.count)...])
        .copyMemory(from: body)
    }
    return xxh3Checksum(UnsafeRawBufferPointer(buffer))
  }
}
