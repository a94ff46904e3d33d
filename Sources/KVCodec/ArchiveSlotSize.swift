internal import KVCore

/// Slot sizes of the archive: encoded blocks differ in length, so its slots come in classes.
///
/// Sixteen to each power of two, so that a slot is at most a sixteenth larger than what it holds; of whole pages.
package enum ArchiveSlotSize {
  /// The smallest class that holds so many bytes.
  package static func holding(_ byteCount: Int) -> Int {
    let pages = max(1, (byteCount + 4095) / 4096)
    // The largest power of two below it, in pages.
    let power = 1 << (Int.bitWidth - 1 - max(1, pages - 1).leadingZeroBitCount)
    return roundUp(pages, to: max(1, power / 16)) * 4096
  }

  /// Whether it is a size that the archive's slots may have.
  package static func isClass(_ slotByteCount: Int) -> Bool {
    slotByteCount > 0 && holding(slotByteCount) == slotByteCount
  }
}
