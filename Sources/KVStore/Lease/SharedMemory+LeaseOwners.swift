package import KVCore

extension SharedMemory {
  /// The owners of the leases in the tables as they lie in their file, one for each lease; without mapping it.
  package func leaseOwnersOnDisk() -> [OwnerID] {
    guard let path = tablesPath, let words = ProcessMemoryTable.words(of: path) else { return [] }
    return LeaseTable.entries(words).map(\.owner)
  }
}
