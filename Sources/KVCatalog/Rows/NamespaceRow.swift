package import KVCore

/// A namespace as it is stored.
package struct NamespaceRow: Sendable, Equatable {
  package var id: NamespaceID
  package var namespace: NewNamespace

  package init(id: NamespaceID, namespace: NewNamespace) {
    self.id = id
    self.namespace = namespace
  }

  package var rootKey: BlockKey { namespace.rootKey }
  package var identityRecord: [UInt8] { namespace.identityRecord }
  package var slotByteCount: UInt32 { namespace.slotByteCount }
  package var headerByteCount: UInt32 { namespace.headerByteCount }
  package var wordsPerBlock: UInt32 { namespace.wordsPerBlock }
  package var flags: UInt32 { namespace.flags }
  package var quotaBytes: UInt64 { namespace.quotaBytes }
  package var defaultTTLNanoseconds: UInt64 { namespace.defaultTTLNanoseconds }
  /// Where its stamps are: one pool for each slot size, 0 for inline payloads.
  package var pool: UInt32 { namespace.slotByteCount / 4096 }
  /// Where its stamps are a second time, in an order of their own, while it has a quota.
  var quotaPool: UInt32? { quotaBytes == 0 ? nil : 1 << 31 | id.rawValue }
  var pools: [UInt32] { quotaPool.map { [pool, $0] } ?? [pool] }
  package var facts: NamespaceFlags { NamespaceFlags(rawValue: namespace.flags) }

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
  package static let hasIdleLives = NamespaceFlags(rawValue: 2)
  /// Some block had a life that ends at a time.
  package static let hasAbsoluteLives = NamespaceFlags(rawValue: 4)
  /// The default life is absolute.
  package static let defaultIsAbsolute = NamespaceFlags(rawValue: 8)

  /// Whether blocks may come to an end by themselves.
  package var mayExpire: Bool {
    contains(.hasIdleLives) || contains(.hasAbsoluteLives)
  }
}

/// A namespace before it has an id.
package struct NewNamespace: Sendable, Equatable {
  package var rootKey: BlockKey
  package var identityRecord: [UInt8]
  /// 0 = payloads are inline.
  package var slotByteCount: UInt32
  package var headerByteCount: UInt32
  package var wordsPerBlock: UInt32
  package var flags: UInt32
  /// 0 = none.
  package var quotaBytes: UInt64
  /// 0 = never.
  package var defaultTTLNanoseconds: UInt64

  package init(
    rootKey: BlockKey,
    identityRecord: [UInt8],
    slotByteCount: UInt32,
    headerByteCount: UInt32,
    wordsPerBlock: UInt32,
    flags: UInt32 = 0,
    quotaBytes: UInt64 = 0,
    defaultTTLNanoseconds: UInt64 = 0
  ) {
    self.rootKey = rootKey
    self.identityRecord = identityRecord
    self.slotByteCount = slotByteCount
    self.headerByteCount = headerByteCount
    self.wordsPerBlock = wordsPerBlock
    self.flags = flags
    self.quotaBytes = quotaBytes
    self.defaultTTLNanoseconds = defaultTTLNanoseconds
  }
}
