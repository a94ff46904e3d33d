internal import KVCatalog
public import KVCore
public import KVStore

/// What `Store.repair` found and gave back.
public struct Repair: Sendable, Equatable {
  /// Slots that were looked at.
  public var slotCount: Int = 0
  /// Namespaces in the new catalog.
  public var namespaceCount: Int = 0
  /// Blocks given back: every byte verified, and all their ancestors with them.
  public var blockCount: Int = 0
  /// Their payload.
  public var payloadByteCount: UInt64 = 0
  /// Of those, blocks whose payload lay in the old catalog.
  public var inlineBlockCount: Int = 0
  /// Not given back: the payload or the key chain is not what the header says.
  public var damagedCount: Int = 0
  /// Not given back: an ancestor is gone.
  public var orphanCount: Int = 0
  /// Not given back: forgotten or purged.
  public var removedCount: Int = 0
  /// Not given back: expired.
  public var expiredCount: Int = 0
  /// Not given back: an older copy of a block that was given back.
  public var supersededCount: Int = 0
  /// Not given back: another store's, or of a namespace whose identity record is lost.
  public var unknownCount: Int = 0
  /// Slot files without a single intact header, set aside.
  public var slotFilesSetAside: Int = 0
  /// The old catalog has every page and row, so that a repair loses more than it gives back.
  public var catalogIsSound = false
  /// Nothing was done, because the old catalog is sound.
  public var isRefused = false
  /// What the new catalog has of the old one beside the blocks.
  public var kept = Kept()

  /// Rows of the old catalog that mean the same in a new one; counters of what the store did are kept as well.
  public struct Kept: Sendable, Equatable {
    /// Pins.
    public var pinCount = 0
    /// Sessions.
    public var sessionCount = 0
    /// Stretches of time of which the history tells.
    public var historyCount = 0
  }
  /// The folder with what was replaced; nil when nothing was (a dry run).
  public var keptAside: String?

  /// Nothing yet.
  public init() {}
}

/// A slot, or an inline payload, that may hold a block.
struct RepairCandidate {
  enum Source {
    case slot(SlotAddress)
    /// Bytes of the old catalog's file.
    case inline(Range<Int>)
  }

  let source: Source
  let rootKey: BlockKey
  let blockKey: BlockKey
  let parentKey: BlockKey
  let generation: UInt64
}

/// A namespace whose blocks can be told from their slots alone.
struct RepairNamespace {
  let row: NamespaceRow
  let identity: NamespaceIdentity
  let chain: KeyChain

  init?(_ row: NamespaceRow) {
    guard let identity = NamespaceIdentity(record: row.identityRecord) else { return nil }
    self.row = row
    self.identity = identity
    chain = KeyChain(
      rootKey: row.rootKey,
      identityMode: identity.identityMode,
      wordsPerBlock: identity.wordsPerBlock
    )
  }
}

extension Store {
  /// Rebuilds the catalog of a store that nobody has open, from what is provably intact.
  ///
  /// The slot files are enough when the catalog is damaged or gone. Each block that is given back has been read and verified, with all
  /// its ancestors. What was replaced is kept in a folder beside; a dry run replaces nothing.
  ///
  /// - Parameters:
  ///   - configuration: path, I/O and clock; sizes are those that the store was made with.
  ///   - dryRun: count only.
  ///   - force: replace a catalog that is sound too, instead of refusing.
  ///   - withoutArchive: give up what lies in an archive that is not there, instead of refusing.
  ///   - progress: called now and then, on the caller's thread.
  /// - Returns: what was found and given back.
  /// - Throws: `StoreError`: `.locked(.inUse)` while a process has the store open, `.locked(.archiveAway)` while its archive is not
  ///   mounted.
  public static func repair(
    _ configuration: StoreConfiguration,
    dryRun: Bool = false,
    force: Bool = true,
    withoutArchive: Bool = false,
    progress: (MaintenanceProgress) -> Void = { _ in }
  ) throws(StoreError) -> Repair {
    try configuration.validate()
    var repair = try StoreRepair(
      configuration,
      isDryRun: dryRun,
      isForced: force,
      withoutArchive: withoutArchive
    )
    return try repair.run(progress)
  }
}
