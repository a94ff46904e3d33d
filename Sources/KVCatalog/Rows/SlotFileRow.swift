package import KVCore

/// A slot file as the catalog knows it.
package struct SlotFileRow: Sendable, Equatable {
  package var tier: Tier
  package var file: UInt32
  package var slotByteCount: UInt32
  package var slotCount: UInt32
  /// Used or reserved.
  package var usedCount: UInt32
  /// 0 = in use.
  package var state: UInt32 = 0
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
}
