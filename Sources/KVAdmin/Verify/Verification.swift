public import KVCore
public import KVStore

/// What `Store.verify` looks at.
public struct VerifyOptions: Sendable {
  /// Read the payload too and compare its checksums; else slot headers only.
  public var checksPayload: Bool = true
  /// Findings that are kept; the rest is counted.
  public var findingCountMax: Int = 1000

  /// Everything is checked.
  public init() {}
}

/// What `Store.verify` saw.
public struct Verification: Sendable {
  /// What belongs to processes that have ended, or to a crash: room that the next writer takes back, no fault.
  public struct LeftOver: Sendable, Equatable {
    /// Slots that dead processes hold reserved.
    public var reservedSlotCount: Int = 0
    /// Leases of dead processes.
    public var leaseCount: Int = 0
    /// Lock files of dead processes.
    public var ownerFileCount: Int = 0
    /// Slot files that the catalog does not know.
    public var slotFileCount: Int = 0

    /// Nothing.
    public init() {}
  }

  /// Rows of all tables of the catalog.
  public var rowCount: Int = 0
  /// Namespaces.
  public var namespaceCount: Int = 0
  /// Runs.
  public var runCount: Int = 0
  /// Blocks.
  public var blockCount: Int = 0
  /// Blocks whose header was compared with the row.
  public var headerCount: Int = 0
  /// Blocks whose payload was read and compared with its checksums.
  public var payloadCount: Int = 0
  /// Bytes of those.
  public var payloadByteCount: UInt64 = 0
  /// Slots that moved on while they were looked at: no fault.
  public var movedCount: Int = 0
  /// Commits were made meanwhile: sums were compared only as far as one snapshot goes.
  public var wasWritten: Bool = false
  /// Slots whose purged payload is still to be overwritten.
  public var erasePendingSlotCount: Int = 0
  /// What dead processes left.
  public var leftOver: LeftOver = LeftOver()
  /// What is wrong, the first ones.
  public var findings: [Finding] = []
  /// What is wrong, all of it.
  public var findingCount: Int = 0

  /// Nothing is wrong.
  public var isSound: Bool { findingCount == 0 }
}

/// How far a long operation has come.
public struct MaintenanceProgress: Sendable {
  /// What is being done, in a few words.
  public var activity: String
  /// Steps done: rows, slots or blocks.
  public var doneCount: Int
  /// Steps to be done as far as that is known; else 0.
  public var totalCount: Int
}

extension Store {
  /// Checks the whole store: the catalog's invariants, each slot against its row, every checksum.
  ///
  /// Works at rest and beside live processes: it reads in short transactions, holds none while it reads payload, and what moves on
  /// meanwhile is no finding. Changes nothing.
  ///
  /// - Parameters:
  ///   - options: what is looked at.
  ///   - progress: called now and then, on the caller's thread.
  /// - Returns: counts and findings.
  /// - Throws: `StoreError` when the store cannot be read at all; damage is a finding.
  public func verify(
    _ options: VerifyOptions = VerifyOptions(),
    progress: (MaintenanceProgress) -> Void = { _ in }
  ) throws(StoreError) -> Verification {
    try enter()
    defer { leave() }
    var verifier = StoreVerifier(core: core, options: options)
    return try verifier.run(progress)
  }
}
