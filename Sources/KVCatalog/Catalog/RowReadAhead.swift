internal import Glibc

/// Asks the kernel for the pages that a long walk along a run is about to touch.
///
/// The catalog is mapped without read-ahead, which suits look-ups. Rows of one run were mostly written together, so the pages
/// behind the current one hold the next rows. A short walk asks for nothing.
struct RowReadAhead {
  private var rowCount = 0
  private var end: UInt = 0

  /// Rows before a walk counts as long.
  private static let rowCountMin = 16
  private static let windowByteCount: UInt = 256 << 10

  mutating func willRead(_ row: UnsafeRawBufferPointer) {
    rowCount += 1
    guard rowCount >= Self.rowCountMin else { return }
    let address = UInt(bitPattern: row.baseAddress)
    let isInside = address < end && address >= end &- Self.windowByteCount
    guard !isInside else { return }
    let page = address & ~4095
    end = page + Self.windowByteCount
    // Advice only: the end of the mapping may come first, and then nothing happens.
    _ = unsafe madvise(
      UnsafeMutableRawPointer(bitPattern: page),
      Int(Self.windowByteCount),
      MADV_WILLNEED
    )
  }
}
