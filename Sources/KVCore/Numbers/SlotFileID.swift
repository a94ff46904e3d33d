/// A slot file of a durable tier; numbers are given once, whatever the tier.
package struct SlotFileID: Hashable, Sendable {
  package var tier: Tier
  package var file: UInt32
  package init(tier: Tier, file: UInt32) {
    self.tier = tier
    self.file = file
  }
}
