package import KVCore

/// The live rows of a catalog, read from the bytes of its file without LMDB.
///
/// Each step stays within the bounds of the file, so no damage can end in a signal (layout: `mdb.c` of LMDB 0.9, `MDB_meta`, `MDB_page`,
/// `MDB_node`). Unlike `CatalogSalvage` this finds no row that was removed, and nothing below a page that is damaged.
@safe package struct CatalogTree {
  /// Every page of every table is there, with as many rows as it should have, and each row's checksum fits.
  package private(set) var isSound = false
  /// Rows that mean the same in another catalog.
  package private(set) var portable = PortableRows()
  package private(set) var namespaces: [NamespaceRow] = []

  private var positions: Set<[UInt8]> = []
  private var isOfThisVersion = false

  private static let pageByteCount = CatalogSalvage.pageByteCount
  private static let noPage = UInt64.max
  private static let depthMax = 32

  /// Reads the bytes of a file `catalog.mdb`.
  package init(_ file: UnsafeRawBufferPointer) {
    guard let mainRoot = unsafe Self.newestMain(file) else { return }
    var tables: [String: (root: UInt64, count: UInt64)] = [:]
    var isWhole = true
    var visitedCount = 0
    let isMainWhole = unsafe Self.walk(mainRoot.root, file, &visitedCount) { key, value, flags in
      guard flags & 2 != 0, value.count == 48 else { return isWhole = false }
      let name = unsafe String(decoding: key, as: UTF8.self)
      tables[name] = unsafe (value.loadInteger(40), value.loadInteger(32))
    }
    // What names blocks first: then it is known which blocks' keys are wanted.
    let order = Table.allCases.sorted { ($0 == .runs ? 1 : 0) < ($1 == .runs ? 1 : 0) }
    for table in order {
      guard let (root, count) = tables[table.name] else {
        if !table.isAddedLater { isWhole = false }
        continue
      }
      var found: UInt64 = 0
      var areRowsSound = true
      let isTableWhole = unsafe Self.walk(root, file, &visitedCount) { key, value, _ in
        found += 1
        guard table != .keys else { return }
        if checksumMatches(table, key: key, value: value) {
          unsafe take(table, Array(key), rowBody(value))
        } else {
          areRowsSound = false
        }
      }
      if !isTableWhole || !areRowsSound || found != count { isWhole = false }
    }
    isSound = isWhole && isMainWhole && isOfThisVersion
  }

  private static func newestMain(_ file: UnsafeRawBufferPointer) -> (root: UInt64, id: UInt64)? {
    (0..<2).compactMap { (number: Int) -> (root: UInt64, id: UInt64)? in
      let start = number * pageByteCount
      guard start + 152 <= file.count, unsafe file.loadInteger(start + 16) as UInt32 == 0xBEEF_C0DE
      else { return nil }
      return unsafe (file.loadInteger(start + 128), file.loadInteger(start + 144))
    }.max { $0.id < $1.id }
  }

  /// Lends the rows below a page, in order; false when a page or a node is not what it should be.
  private static func walk(
    _ number: UInt64,
    _ file: UnsafeRawBufferPointer,
    _ visitedCount: inout Int,
    depth: Int = 0,
    _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer, UInt16) -> Void
  ) -> Bool {
    guard number != noPage else { return true }
    visitedCount += 1
    guard depth < depthMax, visitedCount <= file.count / pageByteCount * 2,
      number < UInt64(file.count / pageByteCount)
    else { return false }
    let start = Int(number) * pageByteCount
    let page = unsafe UnsafeRawBufferPointer(rebasing: file[start..<start + pageByteCount])
    let flags: UInt16 = unsafe page.loadInteger(10)
    let lower = unsafe Int(page.loadInteger(12) as UInt16)
    guard unsafe page.loadInteger(0) as UInt64 == number, flags & 3 == 1 || flags & 3 == 2,
      lower >= 16, lower <= page.count
    else { return false }
    var isWhole = true
    for index in 0..<(lower - 16) / 2 {
      let node = unsafe Int(page.loadInteger(16 + 2 * index) as UInt16)
      guard node >= lower, node + 8 <= page.count else { return false }
      let low = unsafe UInt64(page.loadInteger(node) as UInt16)
      let high = unsafe UInt64(page.loadInteger(node + 2) as UInt16)
      let nodeFlags: UInt16 = unsafe page.loadInteger(node + 4)
      if flags & 1 != 0 {
        let child = low | high << 16 | UInt64(nodeFlags) << 32
        if unsafe !walk(child, file, &visitedCount, depth: depth + 1, body) { isWhole = false }
        continue
      }
      let keyEnd = unsafe node + 8 + Int(page.loadInteger(node + 6) as UInt16)
      let byteCount = Int(low | high << 16)
      guard keyEnd <= page.count else { return false }
      let key = unsafe UnsafeRawBufferPointer(rebasing: page[node + 8..<keyEnd])
      var value: UnsafeRawBufferPointer?
      if nodeFlags & 1 == 0 {
        if keyEnd + byteCount <= page.count {
          unsafe value = UnsafeRawBufferPointer(rebasing: page[keyEnd..<keyEnd + byteCount])
        }
      } else if keyEnd + 8 <= page.count {
        unsafe value = overflow(page.loadInteger(keyEnd), byteCount, file)
      }
      if let value = unsafe value { unsafe body(key, value, nodeFlags) } else { isWhole = false }
    }
    return isWhole
  }

  private static func overflow(
    _ number: UInt64,
    _ byteCount: Int,
    _ file: UnsafeRawBufferPointer
  ) -> UnsafeRawBufferPointer? {
    guard number < UInt64(file.count / pageByteCount) else { return nil }
    let start = Int(number) * pageByteCount + 16
    guard byteCount <= file.count - start else { return nil }
    return unsafe UnsafeRawBufferPointer(rebasing: file[start..<start + byteCount])
  }

  // MARK: Rows

  private mutating func take(_ table: Table, _ key: [UInt8], _ body: UnsafeRawBufferPointer) {
    switch table {
    case .meta: unsafe takeMeta(String(decoding: key, as: UTF8.self), body)
    case .namespaces:
      if let (id, kind) = unsafe key.withUnsafeBytes({ unsafe namespaceKey($0) }),
        kind == NamespaceRowKind.namespace.rawValue, let row = unsafe NamespaceRow(id: id, body)
      {
        namespaces.append(row)
      }
    case .pins:
      guard key.count == 8, let pin = unsafe PinRow(id: key.bigEndianInteger, body) else { return }
      portable.pins.append(pin)
      if let end = pin.path.first { want(pin.namespace, end) }
    case .sessions:
      unsafe portable.sessions.append((key, Array(body)))
      if let session = unsafe SessionRow(key: key, body), let head = session.head {
        want(session.namespace, head)
      }
    case .history: unsafe portable.history.append((key, Array(body)))
    case .runs where positions.contains(key):
      // Behind the checksum: docs/file-format.md, "Block row".
      guard body.count >= 16 else { return }
      portable.blockKeys[key] = unsafe BlockKey(
        high: (body.loadInteger(0) as UInt64).byteSwapped,
        low: (body.loadInteger(8) as UInt64).byteSwapped
      )
    default: break
    }
  }

  private mutating func want(_ namespace: NamespaceID, _ at: BlockPosition) {
    positions.insert(PortableRows.key(namespace, at))
  }

  private mutating func takeMeta(_ name: String, _ body: UnsafeRawBufferPointer) {
    switch MetaName(rawValue: name) {
    case .format:
      isOfThisVersion =
        unsafe body.count >= 4 && body.loadInteger(0) as UInt32 == Catalog.formatVersion
    case .counters: portable.nextPin = unsafe Counters(body)?.pin ?? 0
    case .totals, .recent: unsafe portable.meta.append((name, Array(body)))
    default: break
    }
  }
}

/// What a repair takes over from the old catalog beside the blocks.
package struct PortableRows: Sendable {
  package internal(set) var pins: [PinRow] = []
  var sessions: [(key: [UInt8], body: [UInt8])] = []
  var history: [(key: [UInt8], body: [UInt8])] = []
  var meta: [(name: String, body: [UInt8])] = []
  var nextPin: UInt32 = 0
  /// Of the blocks that pins and sessions name, by the keys of their rows.
  var blockKeys: [[UInt8]: BlockKey] = [:]

  package init() {}

  /// Sessions; the other rows are their steps.
  package var sessionCount: Int { sessions.count { $0.key.suffix(4).allSatisfy { $0 == 0 } } }
  package var historyCount: Int { history.count }

  /// The key of a block that a pin or a session names.
  func blockKey(_ namespace: NamespaceID, _ at: BlockPosition) -> BlockKey? {
    blockKeys[Self.key(namespace, at)]
  }

  static func key(_ namespace: NamespaceID, _ at: BlockPosition) -> [UInt8] {
    unsafe TableKey.block(namespace, at).withBytes { unsafe Array($0) }
  }
}

extension WriteTransaction {
  /// Takes over what pins, sessions, history and counters of an old catalog say, as far as the blocks they name are here.
  ///
  /// `position` tells where a block is. Returns how many pins hold.
  package func adopt(
    _ rows: PortableRows,
    position: (NamespaceID, BlockKey) -> BlockPosition?
  ) throws(CatalogError) -> Int {
    var pinCount = 0
    func moved(_ namespace: NamespaceID, _ at: BlockPosition?) -> BlockPosition? {
      at.flatMap { rows.blockKey(namespace, $0) }.flatMap { position(namespace, $0) }
    }
    for row in rows.pins {
      guard let end = moved(row.namespace, row.path.first), row.id < UInt64(Counters.max)
      else { continue }
      counters.pin = UInt32(row.id)
      if try pin(row.namespace, pathEnd: end, until: row.endNanoseconds) != nil { pinCount += 1 }
    }
    // Numbers are not given twice.
    counters.pin = max(counters.pin, rows.nextPin)
    for row in rows.sessions {
      guard let key = unsafe row.key.withUnsafeBytes({ unsafe TableKey(copying: $0) }) else {
        continue
      }
      let session = unsafe row.body.withUnsafeBytes { unsafe SessionRow(key: row.key, $0) }
      if var session {
        session.head = moved(session.namespace, session.head)
        try putSession(session, steps: [])
      } else {
        try put(.sessions, key, row.body)
      }
    }
    for row in rows.history {
      guard let key = unsafe row.key.withUnsafeBytes({ unsafe TableKey(copying: $0) }) else {
        continue
      }
      try put(.history, key, row.body)
    }
    for row in rows.meta {
      if let name = MetaName(rawValue: row.name) { try put(.meta, .meta(name), row.body) }
    }
    return pinCount
  }
}

extension [UInt8] {
  fileprivate var bigEndianInteger: UInt64 { reduce(0) { $0 << 8 | UInt64($1) } }
}
