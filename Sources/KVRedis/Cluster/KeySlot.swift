/// The part of a cluster's keys in which a key lies (https://valkey.io/topics/cluster-spec: key distribution model).
package struct KeySlot: Hashable, Sendable {
  package static let count = 16_384

  package let number: UInt16

  /// nil beyond the last one.
  package init?(number: UInt16) {
    guard number < Self.count else { return nil }
    self.number = number
  }

  /// That of a key: by what stands between its first `{` and the next `}`, if anything does, else by all of it.
  package init(key: some Collection<UInt8>) {
    if let open = key.firstIndex(of: UInt8(ascii: "{")) {
      let behind = key[key.index(after: open)...]
      if let close = behind.firstIndex(of: UInt8(ascii: "}")), close != behind.startIndex {
        number = crc16(behind[..<close]) % UInt16(Self.count)
        return
      }
    }
    number = crc16(key) % UInt16(Self.count)
  }
}

/// CRC-16/XMODEM: polynomial 0x1021, begins with 0.
private func crc16(_ bytes: some Sequence<UInt8>) -> UInt16 {
  var crc: UInt16 = 0
  for byte in bytes {
    crc ^= UInt16(byte) << 8
    for _ in 0..<8 { crc = crc & 0x8000 == 0 ? crc << 1 : crc << 1 ^ 0x1021 }
  }
  return crc
}
