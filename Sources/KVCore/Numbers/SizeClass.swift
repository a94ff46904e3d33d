/// The class of slots of one size.
package enum SizeClass {
  /// The class's number: pages of 4,096 bytes in a slot; 0 is that of payloads in the catalog.
  package static func number(slotByteCount: Int) -> UInt32 {
    UInt32(truncatingIfNeeded: slotByteCount / 4096)
  }
}
