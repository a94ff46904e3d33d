package import KVCore

/// What happened to a range of blocks of one run.
///
/// A row of `events`: u8 kind, reason, tier, 0, u32 namespace, u64 run, u32 first position, block count, u64 time, u32 owner, 0; of
/// removals then the top block's key[16].
package struct CatalogEvent: Sendable, Equatable {
  package enum Kind: UInt8, Sendable { case stored = 1, removed, quarantined, moved }

  package var sequence: UInt64
  package var kind: Kind
  package var reason: RemovalReason
  package var tier: Tier
  package var namespace: NamespaceID
  package var run: RunID
  package var firstPosition: UInt32
  package var blockCount: UInt32
  package var timeNanoseconds: UInt64
  package var owner: OwnerID
  /// Of a removal: the key of the block at `firstPosition`, by which a later miss is explained; nil when its row was damaged.
  package var topKey: BlockKey?
}

extension CatalogEvent {
  init?(_ sequence: UInt64, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let kind = reader.read(UInt8.self).flatMap({ Kind(rawValue: $0) }),
      let reason = reader.read(UInt8.self).flatMap({ RemovalReason(rawValue: $0) }),
      let tier = reader.read(UInt8.self).flatMap({ Tier(rawValue: $0) }), reader.skip(1),
      let namespace = reader.read(UInt32.self), let run = reader.read(UInt64.self),
      let firstPosition = reader.read(UInt32.self), let blockCount = reader.read(UInt32.self),
      let time = reader.read(UInt64.self), let owner = reader.read(UInt32.self)
    else { return nil }
    self.init(
      sequence: sequence,
      kind: kind,
      reason: reason,
      tier: tier,
      namespace: NamespaceID(rawValue: namespace),
      run: RunID(rawValue: run),
      firstPosition: firstPosition,
      blockCount: blockCount,
      timeNanoseconds: time,
      owner: OwnerID(rawValue: owner),
      topKey: reader.skip(4) ? reader.readKey() : nil
    )
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 56)
    writer.append(kind.rawValue)
    writer.append(reason.rawValue)
    writer.append(tier.rawValue)
    writer.append(UInt8(0))
    writer.append(namespace.rawValue)
    writer.append(run.rawValue)
    writer.append(firstPosition)
    writer.append(blockCount)
    writer.append(timeNanoseconds)
    writer.append(owner.rawValue)
    writer.append(UInt32(0))
    if let topKey { writer.append(topKey) }
    return writer.bytes
  }
}
