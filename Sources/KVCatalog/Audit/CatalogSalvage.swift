package import KVCore

/// Rows that can be proved although the catalog cannot be trusted: read from the pages of its file, without LMDB.
///
/// LMDB follows what its pages say, which ends in a signal when they are damaged. Here each page is taken as a leaf and looked
/// at within its bounds; a row counts when its checksum, which covers table and key as well, fits. Free pages may still hold rows
/// that were removed: the caller decides by generation and removal marks what is to be believed.
@safe package struct CatalogSalvage {
  /// What LMDB is compiled with on every machine that this runs on.
  package static let pageByteCount = 4096
  private static let pageHeaderByteCount = 16
  private static let nodeHeaderByteCount = 8

  /// The store as `meta` describes it; nil when a row of it is lost.
  package private(set) var meta: StoreMeta?
  /// By root key.
  package private(set) var namespaces: [BlockKey: NamespaceRow] = [:]
  /// The largest numbers that were given out are below these.
  package private(set) var numbers = GivenNumbers()
  /// Where inline payloads lie in the file: slot header and stored bytes.
  package private(set) var payloads: [Range<Int>] = []

  private var storeRow: [UInt8] = []
  private var configRow: [UInt8] = []

  /// Looks through the bytes of a file `catalog.mdb`.
  package init(_ file: UnsafeRawBufferPointer) {
    for page in stride(from: 0, to: file.count, by: Self.pageByteCount)
    where page + Self.pageByteCount <= file.count {
      unsafe readPage(file, page)
    }
    meta = unsafe storeRow.withUnsafeBytes { store in
      unsafe configRow.withUnsafeBytes { unsafe StoreMeta(store: store, config: $0) }
    }
  }

  private mutating func readPage(_ file: UnsafeRawBufferPointer, _ page: Int) {
    let lower = unsafe Int(file.loadInteger(page + 12) as UInt16)
    guard lower >= Self.pageHeaderByteCount, lower <= Self.pageByteCount else { return }
    for index in 0..<(lower - Self.pageHeaderByteCount) / 2 {
      let offset = unsafe Int(
        file.loadInteger(page + Self.pageHeaderByteCount + 2 * index) as UInt16
      )
      guard offset >= lower, offset + Self.nodeHeaderByteCount <= Self.pageByteCount else {
        continue
      }
      unsafe readNode(file, page, page + offset)
    }
  }

  /// A node: u16 × 2 size of the data, u16 flags (bit 0 = the data is the number of an overflow page), u16 size of the key.
  private mutating func readNode(_ file: UnsafeRawBufferPointer, _ page: Int, _ node: Int) {
    let low: UInt16 = unsafe file.loadInteger(node)
    let high: UInt16 = unsafe file.loadInteger(node + 2)
    let flags: UInt16 = unsafe file.loadInteger(node + 4)
    let keyByteCount = unsafe Int(file.loadInteger(node + 6) as UInt16)
    let byteCount = Int(low) | Int(high) << 16
    let keyStart = node + Self.nodeHeaderByteCount
    let end = page + Self.pageByteCount
    guard keyByteCount > 0, keyByteCount <= 24, byteCount > 8, keyStart + keyByteCount <= end else {
      return
    }
    var start = keyStart + keyByteCount
    var limit = end
    if flags & 1 != 0 {
      guard start + 8 <= end else { return }
      let number: UInt64 = unsafe file.loadInteger(start)
      guard number < UInt64(file.count / Self.pageByteCount) else { return }
      start = Int(number) * Self.pageByteCount + Self.pageHeaderByteCount
      limit = file.count
    }
    guard start + byteCount <= limit else { return }
    unsafe take(
      key: UnsafeRawBufferPointer(rebasing: file[keyStart..<keyStart + keyByteCount]),
      value: UnsafeRawBufferPointer(rebasing: file[start..<start + byteCount]),
      at: start
    )
  }

  private mutating func take(
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    at start: Int
  ) {
    if key.count == 16, checksumMatches(.payloads, key: key, value: value) {
      return payloads.append(start + rowChecksumByteCount..<start + value.count)
    }
    if key.count == 5, let (id, kind) = unsafe namespaceKey(key),
      kind == NamespaceRowKind.namespace.rawValue,
      checksumMatches(.namespaces, key: key, value: value)
    {
      guard let row = unsafe NamespaceRow(id: id, rowBody(value)) else { return }
      // An identity that had left and came back has a new number; its old row may be on a free page.
      if let known = namespaces[row.rootKey], known.id > id { return }
      namespaces[row.rootKey] = row
      return
    }
    if key.count <= 8, checksumMatches(.meta, key: key, value: value) {
      unsafe takeMeta(String(decoding: key, as: UTF8.self), rowBody(value))
    }
  }

  private mutating func takeMeta(_ name: String, _ body: UnsafeRawBufferPointer) {
    switch MetaName(rawValue: name) {
    case .store: storeRow = unsafe Array(body)
    case .config: configRow = unsafe Array(body)
    case .counters:
      guard let counters = unsafe Counters(body) else { return }
      numbers = numbers.joined(
        with: GivenNumbers(
          owner: counters.owner,
          event: counters.event,
          generation: counters.generation,
          namespace: counters.namespace
        )
      )
    default: break
    }
  }
}
