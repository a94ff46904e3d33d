internal import CXXHash

/// The integrity checksum of stored bytes: unseeded XXH3-64.
@safe package func xxh3Checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
  unsafe kv_xxh3_64(bytes.baseAddress, bytes.count)
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
