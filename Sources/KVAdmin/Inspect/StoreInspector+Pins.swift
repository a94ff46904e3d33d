internal import KVCatalog
public import KVCore
internal import KVStore

extension StoreInspector {
  /// A prefix that stays until a time.
  public struct Pin: Sendable {
    /// What `Store.unpin` takes.
    public var id: UInt64
    /// Whose block it ends at.
    public var namespace: NamespaceID
    /// The last block of the prefix.
    public var end: BlockPosition
    /// Its key; nil when the block was forgotten since.
    public var blockKey: BlockKey?
    /// Blocks of the prefix.
    public var blockCount: Int
    /// Unix time; exactly then it still holds.
    public var endNanoseconds: UInt64
  }

  /// The pins that hold, by number.
  public func pins() throws(StoreError) -> [Pin] {
    try core.catalogRead { (transaction) throws(CatalogError) in
      var pins: [Pin] = []
      for pin in try transaction.pins(now: core.time.now()) {
        guard let end = pin.path.first else { continue }
        pins.append(
          Pin(
            id: pin.id,
            namespace: pin.namespace,
            end: end,
            blockKey: try transaction.row(pin.namespace, end)?.blockKey,
            blockCount: pin.path.reduce(0) { $0 + Int($1.position) + 1 },
            endNanoseconds: pin.endNanoseconds
          )
        )
      }
      return pins
    }
  }

  /// When a block expires, and whether uses put that off.
  public struct Expiry: Sendable {
    /// Unix nanoseconds, 0 = never, pins included.
    public var endNanoseconds: UInt64 = 0
    /// Of an idle life the nanoseconds after a use; else 0.
    public var idleNanoseconds: UInt64 = 0
  }

  func expiry(
    _ transaction: ReadTransaction,
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ row: BlockRow
  ) throws(CatalogError) -> Expiry {
    guard row.hasIdleExpiry else { return Expiry(endNanoseconds: row.expiry) }
    let deadline = try transaction.runDeadlines(
      namespace,
      at.run,
      from: at.position,
      now: core.time.now()
    ).deadline(at: at.position)
    return Expiry(endNanoseconds: deadline == .max ? 0 : deadline, idleNanoseconds: row.expiry)
  }

  /// Until when a pin keeps the block; 0 = none does.
  func pinnedUntil(
    _ transaction: ReadTransaction,
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> UInt64 {
    try transaction.pins(now: core.time.now()).reduce(0) { latest, pin in
      let covers = pin.path.contains { $0.run == at.run && $0.position >= at.position }
      return covers && pin.namespace == namespace ? max(latest, pin.endNanoseconds) : latest
    }
  }

  /// The leading blocks of a run that pins keep.
  func pinnedBlockCount(_ namespace: NamespaceID, _ run: RunID) throws(StoreError) -> Int {
    try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.pins(now: core.time.now()).reduce(0) { most, pin in
        guard pin.namespace == namespace, let end = pin.path.first(where: { $0.run == run }) else {
          return most
        }
        return max(most, Int(end.position) + 1)
      }
    }
  }
}
