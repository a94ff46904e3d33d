internal import KVCodec
internal import KVCore

/// Which parts of a slot are in memory, and where: all of it, or header and some regions one after the other.
struct SlotPieces {
  struct Part {
    /// Bytes of the slot, ascending.
    var slot: Range<Int>
    /// Where the first of them lies in memory.
    var start: Int
  }

  private let first: Part
  private var others: [Part] = []

  /// Bytes between two parts from which on they are read apart.
  private static let gapByteCountMin = 64 << 10

  /// A slot from its beginning on.
  init(byteCount: Int) {
    first = Part(slot: 0..<byteCount, start: 0)
  }

  /// The payload in a row of the catalog's table `payloads`, behind a header without padding.
  init(packed byteCount: Int, usedByteCount: Int, _ layout: SlotLayout) {
    let end = layout.headerByteCount + max(0, byteCount - usedByteCount)
    first = Part(slot: layout.headerByteCount..<end, start: usedByteCount)
  }

  /// The pages that hold the header and some regions (ascending), those that are near each other together.
  ///
  /// Where a variable region lies is known from the header only, so everything before the last one comes along.
  init(_ layout: SlotLayout, _ regions: [Range<Int>], isVariable: Bool) {
    var whole = Part(slot: 0..<layout.headerByteCount, start: 0)
    for range in regions {
      let start = layout.regionOffset(range.lowerBound) / 4096 * 4096
      let end = min(roundUp(layout.regionEnd(range.upperBound - 1), to: 4096), layout.slotByteCount)
      let last = others.last ?? whole
      if !isVariable, start - last.slot.upperBound >= Self.gapByteCountMin {
        others.append(Part(slot: start..<end, start: last.start + last.slot.count))
      } else if others.isEmpty {
        whole.slot = 0..<max(last.slot.upperBound, end)
      } else {
        others[others.count - 1].slot = last.slot.lowerBound..<max(last.slot.upperBound, end)
      }
    }
    first = whole
  }

  var count: Int { 1 + others.count }

  subscript(index: Int) -> Part { index == 0 ? first : others[index - 1] }

  /// Of the memory.
  var byteCount: Int {
    let last = others.last ?? first
    return last.start + last.slot.count
  }

  /// Where bytes of the slot lie in memory; nil when they are not all there.
  func start(of offset: Int, byteCount: Int) -> Int? {
    let part = others.last { $0.slot.lowerBound <= offset } ?? first
    guard offset >= 0, byteCount >= 0, byteCount <= part.slot.upperBound - offset else {
      return nil
    }
    return part.start + offset - part.slot.lowerBound
  }
}
