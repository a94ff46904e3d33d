import Foundation
import KVCore

/// Ways to damage what lies on disk.

extension [UInt8] {
  /// Where a pattern begins and ends, each time.
  func ranges(of pattern: [UInt8]) -> [Range<Int>] {
    guard let first = pattern.first, count >= pattern.count else { return [] }
    return withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return [] }
      var found: [Range<Int>] = []
      var start = 0
      while start <= bytes.count - pattern.count,
        let hit = memchr(base + start, Int32(first), bytes.count - start)
      {
        start = UnsafeRawPointer(hit) - base
        guard start <= bytes.count - pattern.count else { break }
        if memcmp(hit, pattern, pattern.count) == 0 { found.append(start..<start + pattern.count) }
        start += 1
      }
      return found
    }
  }

  /// Block rows in the pages of a catalog, with one place each: the range of the value, and the key.
  func blockRows(namespace: UInt32, wordCount: Int) -> [(value: Range<Int>, key: [UInt8])] {
    let prefix =
      (0..<4).reversed().map { UInt8(truncatingIfNeeded: namespace >> (8 * $0)) } + [
        0, 0, 0, 0, 0, 0, 0,
      ]
    return ranges(of: prefix).compactMap { hit in
      let key = Array(self[hit.lowerBound..<Swift.min(hit.lowerBound + 16, count)])
      guard key.count == 16 else { return nil }
      let byteCount = 80 + (key.suffix(4) == [0, 0, 0, 0] ? 12 : 0) + 4 * wordCount
      let value = hit.lowerBound + 16..<hit.lowerBound + 16 + byteCount
      guard value.upperBound <= count else { return nil }
      let row = Array(self[value])
      return checksummed(row, tag: 3, key: key) == row ? (value, key) : nil
    }
  }
}

/// A row with the checksum that fits.
func checksummed(_ row: [UInt8], tag: UInt8, key: [UInt8]) -> [UInt8] {
  let sum = ([tag] + key + row[8...]).withUnsafeBytes { xxh3Checksum($0) }
  return (0..<8).map { UInt8(truncatingIfNeeded: sum >> (8 * $0)) } + row[8...]
}
