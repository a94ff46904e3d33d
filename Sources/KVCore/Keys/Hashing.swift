internal import CXXHash

/// The integrity checksum of stored bytes: unseeded XXH3-64.
@safe package func xxh3Checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
  unsafe kv_xxh3_64(bytes.baseAddress, bytes.count)
}

/// Copies `source` to `target`, which has room for it, and returns the checksum of the copy.
///
/// Faster than one after the other: the checksum finds the bytes in the cache.
@safe package func xxh3Checksum(
  copying source: UnsafeRawBufferPointer,
  to target: UnsafeMutableRawPointer
) -> UInt64 {
  guard let base = source.baseAddress, source.count > 0 else { return xxh3Checksum(source) }
  return unsafe kv_xxh3_64_copying(target, base, source.count)
}

/// Unseeded XXH3-128, as a key.
@safe package func xxh3Key(_ bytes: UnsafeRawBufferPointer) -> BlockKey {
  let hash = unsafe kv_xxh3_128(bytes.baseAddress, bytes.count)
  return BlockKey(high: hash.high64, low: hash.low64)
}

/// The checksum over three pieces, as if they lay side by side.
@safe package func xxh3Checksum(
  _ a: UnsafeRawBufferPointer,
  _ b: UnsafeRawBufferPointer,
  _ c: UnsafeRawBufferPointer
) -> UInt64 {
  unsafe kv_xxh3_64_joined(
    a.baseAddress,
    a.count,
    b.baseAddress,
    b.count,
    c.baseAddress,
    c.count
  )
}
