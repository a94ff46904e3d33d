internal import Glibc
internal import KVCore

/// Whether a catalog file that ends before LMDB's last page lacks free pages only.
///
/// LMDB writes no page that it takes and gives up within one transaction, so a file may be shorter than its meta page says, and be
/// whole: nobody looks at those pages before they are written. A file that was cut short lacks others, and LMDB would end in a SIGBUS
/// at their first touch. So the list of free pages is read here without LMDB, within the bounds of the file (layout: `mdb.c` of LMDB
/// 0.9, `MDB_meta`, `MDB_page`, `MDB_node`).
struct MissingPages {
  private let descriptor: Int32
  private let pageByteCount: Int
  private let pageCount: UInt64
  private var lastPage: UInt64 = 0
  private var freePages: Set<UInt64> = []
  /// Pages that were read: a list that leads back to itself ends.
  private var readCount = 0

  private enum Flag { static let branch: UInt16 = 1, leaf: UInt16 = 2, overflow: UInt16 = 4 }
  private static let pageHeaderByteCount = 16
  private static let nodeHeaderByteCount = 8
  private static let noPage = UInt64.max

  /// Whether the pages that are missing from a file of this length are all free.
  ///
  /// Beside a process that commits, the list is read again when there is a newer one by then.
  static func areFree(_ descriptor: Int32, byteCount: Int, pageByteCount: Int) -> Bool {
    for _ in 0..<16 {
      var pages = MissingPages(descriptor, byteCount: byteCount, pageByteCount: pageByteCount)
      guard let meta = pages.newestMeta() else { return false }
      let areFree = pages.areFree(meta)
      guard let now = pages.newestMeta(), now.transactionID == meta.transactionID else { continue }
      return areFree
    }
    return false
  }

  private init(_ descriptor: Int32, byteCount: Int, pageByteCount: Int) {
    self.descriptor = descriptor
    self.pageByteCount = pageByteCount
    pageCount = UInt64(max(byteCount, 0) / max(pageByteCount, 1))
  }

  private struct Meta {
    var transactionID: UInt64
    var lastPage: UInt64
    var freeRoot: UInt64
  }

  private func newestMeta() -> Meta? {
    (0..<2).compactMap { (number: UInt64) -> Meta? in
      guard let page = page(number), page.count >= 152 else { return nil }
      return Meta(
        transactionID: Self.load(page, 144),
        lastPage: Self.load(page, 136),
        freeRoot: Self.load(page, 80)
      )
    }.max { $0.transactionID < $1.transactionID }
  }

  private mutating func areFree(_ meta: Meta) -> Bool {
    lastPage = meta.lastPage
    guard lastPage >= pageCount else { return true }
    // More than all that the list can name is not there.
    guard lastPage - pageCount < pageCount * UInt64(pageByteCount) / 8 else { return false }
    guard meta.freeRoot == Self.noPage || read(meta.freeRoot) else { return false }
    return UInt64(freePages.count) == lastPage - pageCount + 1
  }

  /// Takes in what lies below a page of the list; false when it is not sound.
  private mutating func read(_ number: UInt64) -> Bool {
    readCount += 1
    guard UInt64(readCount) <= pageCount, let page = page(number) else { return false }
    let flags: UInt16 = Self.load(page, 10)
    let lower = Int(Self.load(page, 12) as UInt16)
    guard lower >= Self.pageHeaderByteCount, lower <= page.count,
      flags & (Flag.branch | Flag.leaf) != 0
    else { return false }
    for index in 0..<(lower - Self.pageHeaderByteCount) / 2 {
      let node = Int(Self.load(page, Self.pageHeaderByteCount + 2 * index) as UInt16)
      guard node + Self.nodeHeaderByteCount <= page.count else { return false }
      let low = UInt64(Self.load(page, node) as UInt16)
      let high = UInt64(Self.load(page, node + 2) as UInt16)
      let nodeFlags: UInt16 = Self.load(page, node + 4)
      if flags & Flag.branch != 0 {
        guard read(low | high << 16 | UInt64(nodeFlags) << 32) else { return false }
        continue
      }
      let start = node + Self.nodeHeaderByteCount + Int(Self.load(page, node + 6) as UInt16)
      let byteCount = Int(low | high << 16)
      if nodeFlags & 1 == 0 {
        guard start + byteCount <= page.count, byteCount >= 8 else { return false }
        take(page, start, byteCount)
      } else {
        guard start + 8 <= page.count,
          let overflow = overflow(Self.load(page, start), byteCount), byteCount >= 8
        else { return false }
        take(overflow, Self.pageHeaderByteCount, byteCount)
      }
    }
    return true
  }

  /// A list: how many, then their numbers.
  private mutating func take(_ bytes: [UInt8], _ start: Int, _ byteCount: Int) {
    let count = min(Self.load(bytes, start) as UInt64, UInt64(byteCount / 8 - 1))
    for index in 0..<Int(count) {
      let number: UInt64 = Self.load(bytes, start + 8 + index * 8)
      if number >= pageCount, number <= lastPage { freePages.insert(number) }
    }
  }

  // MARK: Bytes

  private func page(_ number: UInt64) -> [UInt8]? { bytes(number, pageByteCount) }

  private func overflow(_ number: UInt64, _ byteCount: Int) -> [UInt8]? {
    bytes(number, Self.pageHeaderByteCount + byteCount)
  }

  /// So many bytes from a page's beginning on; nil where the file has fewer.
  private func bytes(_ number: UInt64, _ byteCount: Int) -> [UInt8]? {
    let pages = UInt64((byteCount + pageByteCount - 1) / pageByteCount)
    guard number < pageCount, pages <= pageCount - number else { return nil }
    var bytes = [UInt8](repeating: 0, count: byteCount)
    let start = off_t(number) * off_t(pageByteCount)
    let count = unsafe bytes.withUnsafeMutableBytes {
      unsafe pread(descriptor, $0.baseAddress, byteCount, start)
    }
    return count == byteCount ? bytes : nil
  }

  private static func load<Integer: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int) -> Integer {
    unsafe bytes.withUnsafeBytes {
      Integer(littleEndian: unsafe $0.loadUnaligned(fromByteOffset: offset, as: Integer.self))
    }
  }
}
