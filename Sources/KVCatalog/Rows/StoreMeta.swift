/// What is decided once, when the store is made.
package struct StoreMeta: Sendable, Equatable {
  package var storeUUID: [UInt8]
  package var createdNanoseconds: UInt64
  package var saltKey: [UInt8]
  package var capacityBytes: UInt64
  package var catalogBytes: UInt64
  package var inlinePayloadBytesMax: UInt64
  package var slotFileBytes: UInt64

  package init(
    storeUUID: [UInt8],
    createdNanoseconds: UInt64,
    saltKey: [UInt8],
    capacityBytes: UInt64,
    catalogBytes: UInt64,
    inlinePayloadBytesMax: UInt64,
    slotFileBytes: UInt64
  ) {
    self.storeUUID = storeUUID
    self.createdNanoseconds = createdNanoseconds
    self.saltKey = saltKey
    self.capacityBytes = capacityBytes
    self.catalogBytes = catalogBytes
    self.inlinePayloadBytesMax = inlinePayloadBytesMax
    self.slotFileBytes = slotFileBytes
  }
}
