package import KVCore

/// A check of the catalog's invariants in bounded steps: what it has gathered, and where it stands.
///
/// Each step is one short transaction and compares each row with the rows that belong to it *in that snapshot*, so a store
/// that changes between two steps gives no false alarm. What needs the whole (sums, slots that two rows claim) is gathered and
/// compared at the end as far as all steps saw one snapshot. Memory: one bit for each slot.
package struct CatalogAudit {
  package var findings: FindingList
  /// Rows looked at, of all tables.
  package private(set) var rowCount = 0
  package private(set) var blockCount = 0
  package private(set) var runCount = 0
  /// The blocks of the last step, for who checks their slots.
  package private(set) var blocks: [AuditedBlock] = []
  /// Slots that more than one row claimed, at one time or another.
  package private(set) var slotsClaimedAgain: Set<SlotAddress> = []
  /// Steps saw different snapshots: sums and claims of the whole need not fit.
  package private(set) var sawCommits = false
  private var firstSnapshot: UInt64?
  /// Bits of the block keys that are kept (tests).
  let keyBitCount: Int

  /// The table that is walked, as an index of `Table.allCases`; past the end when the walk is through.
  private var tableIndex = 0
  var lastKey: TableKey?
  var sums: [NamespaceID: Accounting] = [:]
  /// Namespaces with damaged rows: their sums cannot be compared.
  var damagedNamespaces: Set<NamespaceID> = []
  private(set) var claims: [SlotFileKey: SlotBitmap] = [:]
  var lastEvent: UInt64?
  /// Rows of `ends` whose namespace has a quota.
  var secondStampCount = 0
  /// What was read in the step's own snapshot.
  var step = AuditStepCache()

  /// Whether identity records, key chains and generations are looked at; tests of the catalog alone make them up.
  let checksContents: Bool

  package init(findingCountMax: Int = 1000, checksContents: Bool = true, keyBitCount: Int = 128) {
    findings = FindingList(limit: findingCountMax)
    self.checksContents = checksContents
    self.keyBitCount = keyBitCount
  }

  var table: Table? {
    let tables = Table.allCases
    return tableIndex < tables.count ? tables[tableIndex] : nil
  }

  /// Name of the table that is walked, for people; nil when all are through.
  package var tableName: String? { table?.name }

  /// Gives the rest of this table up, or goes on to the next one.
  package mutating func nextTable() {
    tableIndex += 1
    lastKey = nil
  }

  mutating func beginStep(_ snapshot: UInt64) {
    if snapshot != firstSnapshot ?? snapshot { sawCommits = true }
    firstSnapshot = firstSnapshot ?? snapshot
    step = AuditStepCache()
    blocks = []
  }

  mutating func countRow(of table: Table) {
    rowCount += 1
    if table == .runs { blockCount += 1 }
  }

  mutating func add(_ block: AuditedBlock) {
    if block.at.position == 0 { runCount += 1 }
    var sum = sums[block.namespace] ?? Accounting()
    sum.blockCount += 1
    sum.payloadByteCount += UInt64(block.payloadByteCount)
    sum.storedByteCount += block.places.reduce(0) { $0 + UInt64($1.storedByteCount) }
    sums[block.namespace] = sum
    blocks.append(block)
  }

  mutating func claim(_ slot: SlotAddress, slotCount: Int) {
    let key = SlotFileKey(tier: slot.tier, file: slot.file)
    var bitmap = claims[key] ?? SlotBitmap(slotCount: slotCount)
    if bitmap[Int(slot.slot)] { slotsClaimedAgain.insert(slot) }
    bitmap[Int(slot.slot)] = true
    claims[key] = bitmap
  }
}

/// A block as an audit met it.
package struct AuditedBlock: Sendable {
  package let namespace: NamespaceID
  package let at: BlockPosition
  package let blockKey: BlockKey
  /// nil where the parent's row is damaged or missing.
  package let parentKey: BlockKey?
  package let words: [UInt8]
  package let extra: [UInt8]
  package let payloadByteCount: UInt32
  package let places: [BlockPlace]
}

/// Rows that one step of an audit looks up again and again, all of one snapshot.
struct AuditStepCache {
  struct Namespace {
    let row: NamespaceRow
    /// nil where the identity record is malformed.
    let chain: KeyChain?
  }

  struct SlotFile {
    let slotByteCount: UInt32
    let slotCount: UInt32
    let used: SlotBitmap
    let reserved: [SlotBitmap]
  }

  var counters: Counters?
  var namespaces: [NamespaceID: Namespace?] = [:]
  var slotFiles: [SlotFileKey: SlotFile?] = [:]
}

/// A place for people, as the findings name it.
func described(_ namespace: NamespaceID, _ at: BlockPosition) -> String {
  at == .root
    ? "namespace \(namespace.rawValue), root"
    : "namespace \(namespace.rawValue), run \(at.run.rawValue), position \(at.position)"
}

extension SlotAddress {
  /// For people.
  package var described: String {
    "slots/\(hexadecimalText(UInt64(tier.rawValue), digitCount: 2))"
      + "\(hexadecimalText(UInt64(file), digitCount: 8)).kvs, slot \(slot)"
  }
}
