/// One slot of a durable tier.
package struct SlotAddress: Hashable, Sendable {
  package var tier: Tier
  package var file: UInt32
  package var slot: UInt32
  package init(tier: Tier, file: UInt32, slot: UInt32) {
    self.tier = tier
    self.file = file
    self.slot = slot
  }

  package var fileID: SlotFileID { SlotFileID(tier: tier, file: file) }
}
