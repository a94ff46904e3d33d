internal import KVCore

/// The leases of all processes that hold now.
///
/// Any thread.
struct ActiveLeases: @unchecked Sendable {
  // Unchecked: what is read of the table are atomic words in shared memory.
  private let table: LeaseTable
  private let ownerFiles: OwnerFiles
  private let clock: any StoreClock

  init(_ table: LeaseTable, _ ownerFiles: OwnerFiles, _ clock: any StoreClock) {
    self.table = table
    self.ownerFiles = ownerFiles
    self.clock = clock
  }

  /// Owners of leases whose process has ended; looks at lock files, so no lock is held over it.
  func deadOwners() -> Set<OwnerID> { table.foreignOwners().filter { ownerFiles.isDead($0) } }

  /// The deepest position of each run that a lease keeps, those of `deadOwners` left out.
  func deepestPositions(deadOwners: Set<OwnerID>) -> [RunID: UInt32] {
    table.deepestPositions(now: clock.bootTimeNanoseconds(), deadOwners: deadOwners)
  }
}
