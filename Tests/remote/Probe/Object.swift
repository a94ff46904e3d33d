import Glibc

/// The bytes of an object, which follow from its name and length: whoever reads it knows what it should be.
final class Object {
  let bytes: UnsafeMutableRawBufferPointer

  init(_ name: String, byteCount: Int) {
    bytes = .allocate(byteCount: byteCount, alignment: 64)
    var state: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in name.utf8 { state = (state ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let words = bytes.bindMemory(to: UInt64.self)
    for index in words.indices {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      words[index] = state
    }
    for index in (words.count * 8)..<byteCount {
      bytes[index] = UInt8(truncatingIfNeeded: state >> 56)
    }
  }

  deinit { bytes.deallocate() }

  /// The bytes in so many pieces of unequal length.
  func pieces(_ count: Int) -> [UnsafeRawBufferPointer] {
    var pieces: [UnsafeRawBufferPointer] = []
    var start = 0
    for index in 0..<count {
      let end =
        index == count - 1
        ? bytes.count : min(bytes.count, start + bytes.count * (index + 1) / (count * count))
      pieces.append(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
      start = end
    }
    return pieces
  }

  func isEqual(_ other: UnsafeMutableRawBufferPointer) -> Bool {
    guard other.count == bytes.count else { return false }
    guard let one = other.baseAddress, let two = bytes.baseAddress else { return bytes.isEmpty }
    return memcmp(one, two, bytes.count) == 0
  }
}
