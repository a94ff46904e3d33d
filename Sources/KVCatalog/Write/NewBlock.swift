package import KVCore

/// A block to be published.
///
/// The buffers must outlive the call, and may not point into the catalog.
@safe package struct NewBlock {
  package var blockKey: BlockKey
  package var parent: BlockPosition
  package var words: UnsafeRawBufferPointer
  package var extra: UnsafeRawBufferPointer
  package var payloadByteCount: UInt32
  package var blockExpiry = BlockExpiry.unlimited
  package var createdSeconds: UInt32
  /// From 0 to 100; blocks of lower priority are evicted first.
  package var priority: UInt8 = NewBlock.priorityDefault
  package var place: BlockPlace
  package static let priorityDefault: UInt8 = 50

  /// Slot header and stored bytes, when the place is inline.
  package var inlinePayload: UnsafeRawBufferPointer?

  package init(
    blockKey: BlockKey,
    parent: BlockPosition,
    words: UnsafeRawBufferPointer,
    extra: UnsafeRawBufferPointer,
    payloadByteCount: UInt32,
    createdSeconds: UInt32,
    place: BlockPlace,
    inlinePayload: UnsafeRawBufferPointer? = nil
  ) {
    self.blockKey = blockKey
    self.parent = parent
    unsafe self.words = words
    unsafe self.extra = extra
    self.payloadByteCount = payloadByteCount
    self.createdSeconds = createdSeconds
    self.place = place
    unsafe self.inlinePayload = inlinePayload
  }
}
