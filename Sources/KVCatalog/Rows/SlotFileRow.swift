package import KVCore

/// A slot file as the catalog knows it.
///
/// Row of owner 0 in `slots`: u32 slot bytes, slot count, used count, state, then the bitmap of used slots.
package struct SlotFileRow: Sendable, Equatable {
  package var tier: Tier
  package var file: UInt32
  package var slotByteCount: UInt32
  package var slotCount: UInt32
  /// Used or reserved.
  package var usedCount: UInt32
  /// 0 = in use, 1 = being emptied.
  package var state: UInt32 = 0
}

extension SlotFileRow {
  /// No slot of it is given out any more.
  package var isBeingEmptied: Bool { state == Self.beingEmptied }

  static let inUse: UInt32 = 0
  static let beingEmptied: UInt32 = 1
}

extension SlotFileRow {
  /// A file of which nothing is used.
  package init(tier: Tier, file: UInt32, slotByteCount: UInt32, slotCount: UInt32) {
    self.init(
      tier: tier,
      file: file,
      slotByteCount: slotByteCount,
      slotCount: slotCount,
      usedCount: 0
    )
  }

  fileprivate static let fixedByteCount = 16

  /// Of the row's bitmap nothing is read; nil when it is too short.
  init?(tier: Tier, file: UInt32, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let slotByteCount = reader.read(UInt32.self), let slotCount = reader.read(UInt32.self),
      let usedCount = reader.read(UInt32.self), let state = reader.read(UInt32.self)
    else { return nil }
    self.init(
      tier: tier,
      file: file,
      slotByteCount: slotByteCount,
      slotCount: slotCount,
      usedCount: usedCount,
      state: state
    )
  }

  /// The used slots, as far as the row has them.
  static func bitmap(_ body: UnsafeRawBufferPointer) -> SlotBitmap {
    unsafe SlotBitmap(UnsafeRawBufferPointer(rebasing: body.dropFirst(fixedByteCount)))
  }
}

/// A slot file in memory.
struct SlotFileState {
  var row: SlotFileRow
  var used: SlotBitmap
  var isChanged = false

  /// A file of which nothing is used.
  init(_ row: SlotFileRow) {
    self.row = row
    used = SlotBitmap(slotCount: Int(row.slotCount))
    isChanged = true
  }

  /// Nil when the bitmap is not as long as the row says.
  init?(_ key: SlotFileKey, _ body: UnsafeRawBufferPointer) {
    guard let row = unsafe SlotFileRow(tier: key.tier, file: key.file, body) else { return nil }
    self.row = row
    used = unsafe SlotFileRow.bitmap(body)
    guard used.bytes.count == (Int(row.slotCount) + 7) / 8 else { return nil }
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: SlotFileRow.fixedByteCount + used.bytes.count)
    writer.append(row.slotByteCount)
    writer.append(row.slotCount)
    writer.append(row.usedCount)
    writer.append(row.state)
    writer.append(contentsOf: used.bytes)
    return writer.bytes
  }

  mutating func use(_ slot: Int) {
    used[slot] = true
    row.usedCount += 1
    isChanged = true
  }

  mutating func free(_ slot: Int) {
    used[slot] = false
    // A row may say that none is used although its bits say otherwise.
    if row.usedCount > 0 { row.usedCount -= 1 }
    isChanged = true
  }
}

/// A slot file.
struct SlotFileKey: Hashable {
  var tier: Tier
  var file: UInt32
}
