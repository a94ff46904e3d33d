internal import KVCatalog
internal import KVCore

/// How many records bytes hold that may be an `identities.kvs`.
package struct IdentityFileSummary {
  package let identityCount: Int
  package let removalCount: Int
  package let hasStore: Bool
  /// Bytes that no record accounts for.
  package let damagedByteCount: Int
  package var recordCount: Int { identityCount + removalCount + (hasStore ? 1 : 0) }

  /// Reads the records of all stores.
  package init(_ bytes: UnsafeRawBufferPointer) {
    let file = unsafe IdentityFile(bytes, storeUUID: nil)
    identityCount = file.identities.count
    removalCount = file.removals.count
    hasStore = file.store != nil
    damagedByteCount = file.damagedByteCount
  }
}
