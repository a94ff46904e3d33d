import Foundation
import KVCatalog
import KVCore
import Testing

/// The bytes of docs/file-format.md, made by hand and looked for in the file; and damage to them.
@Suite struct CatalogFormatTests {
  /// Key and value lie side by side in a page of LMDB.
  private func row(_ tag: UInt8, key: [UInt8], _ body: [UInt8]) -> [UInt8] {
    let covered = [tag] + key + body
    let checksum = unsafe covered.withUnsafeBytes { xxh3Checksum($0) }
    return key + littleEndianBytes(checksum) + body
  }

  private func ranges(of needle: [UInt8], in file: [UInt8]) -> [Range<Int>] {
    let data = Data(file)
    var ranges: [Range<Int>] = []
    var from = 0
    while let range = data.range(of: Data(needle), in: from..<data.count) {
      ranges.append(range)
      from = range.upperBound
    }
    return ranges
  }

  private let blockKey = BlockKey(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718)

  /// Two blocks of one run, in slots; the second has two extra bytes.
  private func makeFixture() throws -> (CatalogFixture, NamespaceID) {
    let fixture = try CatalogFixture()
    let namespace = try fixture.namespace(1, slotByteCount: 4096)
    try fixture.write { (txn) throws(CatalogError) in
      let file = try txn.createSlotFile(tier: .disk, slotByteCount: 4096, slotCount: 12)
      let slots = try txn.reserveSlots(
        tier: .disk,
        slotByteCount: 4096,
        count: 3,
        owner: OwnerID(rawValue: 1)
      )
      guard file == 1,
        case .stored(let first) = try txn.publish(
          namespace,
          blockKey,
          parent: .root,
          word: 0xA1A2_A3A4,
          place: slotPlace(slots[0])
        ),
        case .stored = try txn.publish(
          namespace,
          BlockKey(high: 5, low: 6),
          parent: first,
          word: 0xB1B2_B3B4,
          extra: [0xEE, 0xEF],
          place: slotPlace(slots[1])
        )
      else { throw .invalidArgument }
    }
    return (fixture, namespace)
  }

  @Test func rowsHaveTheBytesOfTheFormat() throws {
    let (fixture, namespace) = try makeFixture()
    fixture.catalog.close()
    let file = try fixture.fileBytes()
    let ns = bigEndianBytes(namespace.rawValue)
    let run: UInt64 = 1
    let runKey = ns + bigEndianBytes(run)
    func place(slot: UInt32) -> [UInt8] {
      [2, 0, 0, 0] + littleEndianBytes(UInt32(1)) + littleEndianBytes(slot)
        + littleEndianBytes(UInt32(900)) + littleEndianBytes(UInt64(1))
        + littleEndianBytes(UInt64(2))
    }
    func block(_ key: [UInt8], extraCount: UInt8, flags: UInt8, _ rest: [UInt8]) -> [UInt8] {
      key + littleEndianBytes(UInt32(1000)) + [extraCount, 0, 1, flags]
        + littleEndianBytes(UInt64(5_000)) + littleEndianBytes(UInt32(7)) + [9, 0, 0, 0] + rest
    }
    let keyBytes = bigEndianBytes(blockKey.high) + bigEndianBytes(blockKey.low)
    let zero = [UInt8](repeating: 0, count: 4)
    let rootParent = [UInt8](repeating: 0, count: 8) + [255, 255, 255, 255]
    let expected: [(String, [UInt8])] = [
      ("meta format", row(1, key: Array("format".utf8), [2] + [UInt8](repeating: 0, count: 15))),
      (
        "meta store",
        row(
          1,
          key: Array("store".utf8),
          Array(0..<16) + littleEndianBytes(UInt64(77)) + Array(100..<132)
        )
      ),
      (
        "meta counters",
        row(
          1,
          key: Array("counters".utf8),
          [2, 3, 2, 1].flatMap { littleEndianBytes(UInt64($0)) }
            + [2, 1, 2, 1].flatMap { littleEndianBytes(UInt32($0)) }
        )
      ),
      (
        "meta clock",
        row(
          1,
          key: Array("clock".utf8),
          littleEndianBytes(UInt64(1_000)) + littleEndianBytes(UInt64(0))
        )
      ),
      (
        "meta config",
        row(
          1,
          key: Array("config".utf8),
          [1 << 30, 64 << 20, 16_384, 1 << 20].flatMap { littleEndianBytes(UInt64($0)) }
        )
      ),
      ("meta clean", row(1, key: Array("clean".utf8), [1, 0, 0, 0, 0])),
      (
        "namespace",
        row(
          2,
          key: ns + [0],
          [4096, 4096, 1, 1 | 4].flatMap { littleEndianBytes(UInt32($0)) }
            + [UInt8](repeating: 0, count: 16) + bigEndianBytes(UInt64(0))
            + bigEndianBytes(UInt64(1)) + littleEndianBytes(UInt32(1)) + [1]
        )
      ),
      (
        "accounting",
        row(2, key: ns + [1], [2, 2000, 1800].flatMap { littleEndianBytes(UInt64($0)) })
      ),
      (
        "first row",
        row(
          3,
          key: runKey + zero,
          block(
            keyBytes,
            extraCount: 0,
            flags: 1,
            place(slot: 0) + rootParent + [0xA4, 0xA3, 0xA2, 0xA1]
          )
        )
      ),
      (
        "second row",
        row(
          3,
          key: runKey + bigEndianBytes(UInt32(1)),
          block(
            bigEndianBytes(UInt64(5)) + bigEndianBytes(UInt64(6)),
            extraCount: 2,
            flags: 0,
            place(slot: 1) + [0xB4, 0xB3, 0xB2, 0xB1, 0xEE, 0xEF]
          )
        )
      ),
      ("key", ns + keyBytes + littleEndianBytes(run) + zero),
      (
        "root key",
        zero + bigEndianBytes(UInt64(0)) + bigEndianBytes(UInt64(1)) + littleEndianBytes(run) + zero
      ),
      (
        "child",
        row(
          4,
          key: ns + [UInt8](repeating: 0, count: 8) + [255, 255, 255, 255] + bigEndianBytes(run),
          []
        )
      ),
      (
        "stamp",
        row(
          5,
          key: bigEndianBytes(UInt32(1)) + [9] + bigEndianBytes(UInt64(2)),
          littleEndianBytes(namespace.rawValue) + littleEndianBytes(run)
            + littleEndianBytes(UInt32(1))
        )
      ),
      ("end", row(6, key: runKey + bigEndianBytes(UInt32(1)), littleEndianBytes(UInt64(2)) + [9])),
      (
        "slot file",
        row(
          7,
          key: [2] + bigEndianBytes(UInt32(1)) + zero,
          [4096, 12, 3, 0].flatMap { littleEndianBytes(UInt32($0)) } + [0b111, 0]
        )
      ),
      (
        "reservation",
        row(7, key: [2] + bigEndianBytes(UInt32(1)) + bigEndianBytes(UInt32(1)), [0b100, 0])
      ),
      (
        "event",
        row(
          8,
          key: bigEndianBytes(UInt64(1)),
          [1, 0, 2, 0] + littleEndianBytes(namespace.rawValue) + littleEndianBytes(run)
            + [0, 2].flatMap { littleEndianBytes(UInt32($0)) } + littleEndianBytes(UInt64(1_000))
            + [1, 0].flatMap { littleEndianBytes(UInt32($0)) }
        )
      ),
    ]
    for (name, bytes) in expected {
      #expect(!ranges(of: bytes, in: file).isEmpty, "\(name)")
    }
  }

  /// No flipped bit of a row gives other contents: the row is corrupt, or its block is not found.
  @Test func aFlippedByteInARowIsNoticed() throws {
    let (fixture, namespace) = try makeFixture()
    fixture.catalog.close()
    let file = try fixture.fileBytes()
    // The row begins at its checksum, 8 bytes before the blockKey.
    let keyBytes = bigEndianBytes(UInt64(5)) + bigEndianBytes(UInt64(6))
    let rows = ranges(of: keyBytes + littleEndianBytes(UInt32(1000)), in: file)
      .map { $0.lowerBound - 8 }
    #expect(!rows.isEmpty)
    let at = BlockPosition(run: RunID(rawValue: 1), position: 1)
    for offset in 0..<8 + 40 + 32 + 6 {
      var damaged = file
      for row in rows { damaged[row + offset] ^= 0x10 }
      try Data(damaged).write(to: URL(filePath: fixture.path))
      let catalog = try Catalog(fixture.options)
      defer { catalog.close() }
      try catalog.read { (txn) throws(CatalogError) in
        #expect(throws: CatalogError.corrupt(.blockRow)) { try txn.row(namespace, at) }
        var isThere: [Bool] = []
        try txn.forEachRow(namespace, at.run, from: 0) { _, row in
          isThere.append(row != nil)
          return true
        }
        #expect(isThere == [true, false])
        #expect(try !txn.checkInvariants().isEmpty)
      }
      // The damaged block can be removed; then its place in the run is taken again.
      try catalog.write(timeNanoseconds: 1) { (txn) throws(CatalogError) in
        let outcome = try txn.publish(
          namespace,
          BlockKey(high: 5, low: 6),
          parent: at,
          word: 1,
          place: slotPlace(
            SlotAddress(tier: .disk, file: 1, slot: 2)
          )
        )
        let keyIsDamaged = (8..<24).contains(offset)
        if !keyIsDamaged { #expect(outcome == .corruptRow(at)) }
        let summary = try txn.removeSubtree(namespace, at: at, reason: .corrupt, kind: .quarantined)
        #expect(summary.corruptRowCount == 1)
        #expect(try txn.find(namespace, BlockKey(high: 5, low: 6)) == nil)
        #expect(try txn.lastPosition(namespace, at.run) == 0)
      }
    }
  }

  @Test func anotherVersionIsRefused() throws {
    let fixture = try CatalogFixture()
    fixture.catalog.close()
    let file = try fixture.fileBytes()
    let name = Array("format".utf8)
    let old = row(1, key: name, [2] + [UInt8](repeating: 0, count: 15))
    // Version; compatible, read-only-compatible and incompatible feature bits.
    let cases: [(byte: Int, value: UInt8, isRefused: Bool, isRefusedReadOnly: Bool)] = [
      (0, 1, true, true), (0, 3, true, true), (4, 2, false, false), (8, 2, true, false),
      (12, 2, true, true),
    ]
    for (byte, value, isRefused, isRefusedReadOnly) in cases {
      var body = [2] + [UInt8](repeating: 0, count: 15)
      body[byte] = value
      var changed = file
      for range in ranges(of: old, in: file) {
        changed.replaceSubrange(range, with: row(1, key: name, body))
      }
      try Data(changed).write(to: URL(filePath: fixture.path))
      for isReadOnly in [false, true] {
        var options = fixture.options
        options.isReadOnly = isReadOnly
        let found = CatalogError.versionMismatch(found: UInt32(body[0]))
        if isReadOnly ? isRefusedReadOnly : isRefused {
          #expect(throws: found) { try Catalog(options) }
        } else {
          try Catalog(options).close()
        }
      }
    }
  }

  @Test func otherFilesAreRefused() throws {
    let folder = try CatalogFixture.makeFolder()
    defer { try? FileManager.default.removeItem(atPath: folder) }
    var options = CatalogOptions(path: folder + "/catalog.mdb")
    options.mapByteCount = 1 << 20
    #expect(throws: CatalogError.notACatalog) { try Catalog(options) }
    try FileManager.default.removeItem(atPath: options.path)
    for text in ["hello", String(repeating: "no database. ", count: 10_000)] {
      try Data(text.utf8).write(to: URL(filePath: options.path))
      #expect(throws: CatalogError.notACatalog) {
        try Catalog(options, create: CatalogFixture.meta)
      }
      #expect(try String(contentsOfFile: options.path, encoding: .utf8) == text)
    }
    options.path = folder + "/missing/catalog.mdb"
    #expect(throws: CatalogError.io(errno: 2)) { try Catalog(options, create: CatalogFixture.meta) }
    options.path = folder + "/readonly.mdb"
    options.isReadOnly = true
    #expect(throws: CatalogError.io(errno: 2)) { try Catalog(options, create: CatalogFixture.meta) }
  }

  @Test func aFileThatWasCutShortIsRefused() throws {
    let (fixture, _) = try makeFixture()
    fixture.catalog.close()
    let file = try fixture.fileBytes()
    try Data(file.dropLast(4096)).write(to: URL(filePath: fixture.path))
    #expect(throws: CatalogError.corrupt(.file)) { try Catalog(fixture.options) }
  }

  /// LMDB writes no page that it takes and gives up in one transaction: the file is shorter, and whole.
  @Test func pagesThatWereGivenUpBeforeTheyWereWrittenMayBeMissing() throws {
    let fixture = try CatalogFixture()
    let namespace = try fixture.namespace(1, slotByteCount: 0)
    var shortCount = 0
    for round in 0..<24 {
      try fixture.write { (txn) throws(CatalogError) in
        for word in UInt32(0)..<6 {
          let outcome = try txn.publish(
            namespace,
            BlockKey(high: 1, low: UInt64(word)),
            parent: .root,
            word: word,
            place: inlinePlace(),
            payload: [UInt8](repeating: 7, count: 5_000 + 5_000 * ((round + Int(word)) % 7))
          )
          guard case .stored(let position) = outcome, word < 5 || round % 3 > 0 else { continue }
          _ = try txn.removeSubtree(namespace, at: position, reason: .forgotten)
        }
      }
      let file = try fixture.fileBytes()
      // The newer of the two meta pages, by the number of its transaction.
      let meta = file[144] > file[4096 + 144] ? 0 : 4096
      let last = Int(file[meta + 136]) + 256 * Int(file[meta + 137])
      guard last >= file.count / 4096 else { continue }
      shortCount += 1
      let copy = try CatalogFixture.makeFolder()
      defer { try? FileManager.default.removeItem(atPath: copy) }
      var options = CatalogOptions(path: copy + "/catalog.mdb")
      try Data(file).write(to: URL(filePath: options.path))
      for isReadOnly in [true, false] {
        options.isReadOnly = isReadOnly
        try Catalog(options).close()
      }
      // One page less is one that is needed, or another that is free.
      try Data(file.dropLast(2 * 4096)).write(to: URL(filePath: options.path))
      #expect(throws: CatalogError.corrupt(.file)) { try Catalog(options) }
    }
    #expect(shortCount > 0)
  }
}
