import KVCatalog
import KVCore

/// Bytes as the pages of a damaged catalog file.
extension FuzzTarget {
  private static let pageByteCount = CatalogSalvage.pageByteCount

  /// An even first byte: the rest are pages as they are.
  ///
  /// An odd one: a page with a row in it whose checksum fits.
  static func parsePages(_ bytes: UnsafeRawBufferPointer) {
    guard let first = bytes.first else { return }
    var pages = unsafe Array(bytes.dropFirst())
    if first & 1 == 1 { pages = page(withRow: pages, table: first >> 1) }
    // Whole pages, since nothing else is looked at.
    pages += [UInt8](repeating: 0, count: pageByteCount - pages.count % pageByteCount)
    unsafe pages.withUnsafeBytes { pages in
      let salvage = unsafe CatalogSalvage(pages)
      keep(salvage.namespaces.count ^ salvage.payloads.count ^ (salvage.meta == nil ? 0 : 1))
      for range in salvage.payloads { keep(unsafe Int(pages[range.lowerBound])) }
    }
  }

  /// Lays one row out as LMDB does: the first bytes say how long its key is, what lies behind the key is the value's body.
  private static func page(withRow bytes: [UInt8], table: UInt8) -> [UInt8] {
    let keyByteCount = min(Int(bytes.first ?? 0) % 25, max(bytes.count - 1, 0))
    let key = Array(bytes.dropFirst().prefix(keyByteCount))
    let body = Array(bytes.dropFirst(1 + keyByteCount).prefix(3500))
    var tag = table
    let checksum = unsafe key.withUnsafeBytes { key in
      unsafe body.withUnsafeBytes { body in
        withUnsafeBytes(of: &tag) { xxh3Checksum($0, key, body) }
      }
    }
    var node = ByteWriter()
    node.append(UInt16(truncatingIfNeeded: body.count + 8))
    node.append(UInt16(0))
    node.append(UInt16(0))
    node.append(UInt16(key.count))
    node.append(contentsOf: key)
    node.append(checksum)
    node.append(contentsOf: body)
    var page = ByteWriter()
    page.append(contentsOf: [UInt8](repeating: 0, count: 12))
    page.append(UInt16(18))
    page.append(UInt16(18))
    page.append(UInt16(18))
    page.append(contentsOf: node.bytes)
    return page.bytes
  }
}
