/// One bit for each slot of a slot file, least significant bit first.
struct SlotBitmap {
  private(set) var bytes: [UInt8]

  init(slotCount: Int) { bytes = [UInt8](repeating: 0, count: (slotCount + 7) / 8) }
  init(_ bytes: UnsafeRawBufferPointer) { unsafe self.bytes = Array(bytes) }

  /// False beyond the end.
  subscript(slot: Int) -> Bool {
    get { slot >> 3 < bytes.count && bytes[slot >> 3] & mask(slot) != 0 }
    set {
      guard slot >> 3 < bytes.count else { return }
      if newValue { bytes[slot >> 3] |= mask(slot) } else { bytes[slot >> 3] &= ~mask(slot) }
    }
  }

  private func mask(_ slot: Int) -> UInt8 { 1 << UInt8(slot & 7) }

  var isEmpty: Bool { bytes.allSatisfy { $0 == 0 } }

  /// The first slot in `range` whose bit is 0.
  func firstClear(in range: Range<Int>) -> Int? {
    var slot = range.lowerBound
    while slot < range.upperBound {
      // Full bytes are skipped whole: pools are nearly full most of the time.
      if slot & 7 == 0, bytes[slot >> 3] == 0xFF {
        slot += 8
      } else if self[slot] {
        slot += 1
      } else {
        return slot
      }
    }
    return nil
  }

  /// The slots whose bits are 1.
  var slots: [UInt32] {
    var slots: [UInt32] = []
    for (index, byte) in bytes.enumerated() where byte != 0 {
      for bit in 0..<8 where byte & (1 << UInt8(bit)) != 0 { slots.append(UInt32(index * 8 + bit)) }
    }
    return slots
  }
}
