package import KVCore

/// A namespace as it is stored.
///
/// Row of kind 0 in `namespaces`: u32 slot bytes, header bytes, words per block, flags, u64 quota, u64 default time to live, root
/// key[16], u32 bytes of the identity record, the record.
package struct NamespaceRow: Sendable, Equatable {
  /// 0 = it has none yet.
  package var id: NamespaceID
  package var rootKey: BlockKey
  package var identityRecord: [UInt8]
  /// 0 = payloads are inline.
  package var slotByteCount: UInt32
  package var headerByteCount: UInt32
  package var wordsPerBlock: UInt32
  package var facts: NamespaceFlags
  /// 0 = none.
  package var quotaBytes: UInt64
  /// 0 = never.
  package var defaultTTLNanoseconds: UInt64

  package init(
    id: NamespaceID = NamespaceID(rawValue: 0),
    rootKey: BlockKey,
    identityRecord: [UInt8],
    slotByteCount: UInt32,
    headerByteCount: UInt32,
    wordsPerBlock: UInt32,
    facts: NamespaceFlags = [],
    quotaBytes: UInt64 = 0,
    defaultTTLNanoseconds: UInt64 = 0
  ) {
    self.id = id
    self.rootKey = rootKey
    self.identityRecord = identityRecord
    self.slotByteCount = slotByteCount
    self.headerByteCount = headerByteCount
    self.wordsPerBlock = wordsPerBlock
    self.facts = facts
    self.quotaBytes = quotaBytes
    self.defaultTTLNanoseconds = defaultTTLNanoseconds
  }

  /// Nil when it is too short.
  init?(id: NamespaceID, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let slotByteCount = reader.read(UInt32.self),
      let headerByteCount = reader.read(UInt32.self), let wordsPerBlock = reader.read(UInt32.self),
      let flags = reader.read(UInt32.self), let quotaBytes = reader.read(UInt64.self),
      let defaultTTLNanoseconds = reader.read(UInt64.self), let rootKey = reader.readKey(),
      let recordByteCount = reader.read(UInt32.self),
      let identityRecord = reader.readBytes(Int(recordByteCount))
    else { return nil }
    self.init(
      id: id,
      rootKey: rootKey,
      identityRecord: identityRecord,
      slotByteCount: slotByteCount,
      headerByteCount: headerByteCount,
      wordsPerBlock: wordsPerBlock,
      facts: NamespaceFlags(rawValue: flags),
      quotaBytes: quotaBytes,
      defaultTTLNanoseconds: defaultTTLNanoseconds
    )
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 64 + identityRecord.count)
    writer.append(slotByteCount)
    writer.append(headerByteCount)
    writer.append(wordsPerBlock)
    writer.append(facts.rawValue)
    writer.append(quotaBytes)
    writer.append(defaultTTLNanoseconds)
    writer.append(rootKey)
    writer.append(UInt32(identityRecord.count))
    writer.append(contentsOf: identityRecord)
    return writer.bytes
  }

  /// Where its stamps are: one pool for each slot size, 0 for inline payloads.
  package var pool: UInt32 { SizeClass.number(slotByteCount: Int(slotByteCount)) }
  /// Where its stamps are a second time, in an order of their own, while it has a quota.
  var quotaPool: UInt32? { quotaBytes == 0 ? nil : 1 << 31 | id.rawValue }
  package var pools: [UInt32] { quotaPool.map { [pool, $0] } ?? [pool] }

  /// What counts against the quota: whole slots, or the payload where it is inline.
  package func quotaUsage(_ accounting: Accounting) -> UInt64 {
    slotByteCount == 0
      ? accounting.payloadByteCount
      : accounting.blockCount.multipliedReportingOverflow(by: UInt64(slotByteCount)).partialValue
  }
}

/// What a namespace row says about its blocks.
package struct NamespaceFlags: OptionSet, Sendable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Some block had another priority than the default: the order of victims then needs each block's.
  package static let hasPriorities = NamespaceFlags(rawValue: 1)
  /// Some block had a life that uses extend: then every block has its deadline noted.
  package static let hasIdleExpiry = NamespaceFlags(rawValue: 2)
  /// Some block had a life that ends at a time.
  package static let hasAbsoluteExpiry = NamespaceFlags(rawValue: 4)
  /// The default life is absolute.
  package static let defaultIsAbsolute = NamespaceFlags(rawValue: 8)

  /// Whether blocks may come to an end by themselves.
  package var mayExpire: Bool {
    contains(.hasIdleExpiry) || contains(.hasAbsoluteExpiry)
  }
}
