/// What a namespace holds.
package struct Accounting: Sendable, Equatable {
  package var blockCount: UInt64 = 0
  package var payloadByteCount: UInt64 = 0
  package var storedByteCount: UInt64 = 0
  package init() {}
}
