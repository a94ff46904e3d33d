internal import KVCore

/// What is decided once, when the store is made.
///
/// Rows of `meta`: `store`: UUID[16], u64 created, salt key[32]; `config`: u64 capacity, catalog bytes, largest inline payload, bytes of
/// a slot file.
package struct StoreMeta: Sendable, Equatable {
  package var storeUUID: [UInt8]
  package var createdNanoseconds: UInt64
  package var saltKey: [UInt8]
  package var capacityBytes: UInt64
  package var catalogBytes: UInt64
  package var inlinePayloadBytesMax: UInt64
  package var slotFileBytes: UInt64

  package init(
    storeUUID: [UInt8],
    createdNanoseconds: UInt64,
    saltKey: [UInt8],
    capacityBytes: UInt64,
    catalogBytes: UInt64,
    inlinePayloadBytesMax: UInt64,
    slotFileBytes: UInt64
  ) {
    self.storeUUID = storeUUID
    self.createdNanoseconds = createdNanoseconds
    self.saltKey = saltKey
    self.capacityBytes = capacityBytes
    self.catalogBytes = catalogBytes
    self.inlinePayloadBytesMax = inlinePayloadBytesMax
    self.slotFileBytes = slotFileBytes
  }
}

extension StoreMeta {
  /// Nil when a row is too short.
  init?(store: UnsafeRawBufferPointer, config: UnsafeRawBufferPointer) {
    var store = unsafe ByteReader(store)
    var config = unsafe ByteReader(config)
    guard let storeUUID = store.readBytes(16), let created = store.read(UInt64.self),
      let saltKey = store.readBytes(32), let capacityBytes = config.read(UInt64.self),
      let catalogBytes = config.read(UInt64.self),
      let inlinePayloadBytesMax = config.read(UInt64.self),
      let slotFileBytes = config.read(UInt64.self)
    else { return nil }
    self.init(
      storeUUID: storeUUID,
      createdNanoseconds: created,
      saltKey: saltKey,
      capacityBytes: capacityBytes,
      catalogBytes: catalogBytes,
      inlinePayloadBytesMax: inlinePayloadBytesMax,
      slotFileBytes: slotFileBytes
    )
  }

  var storeRow: [UInt8] {
    var writer = ByteWriter(capacity: 56)
    writer.append(contentsOf: storeUUID)
    writer.append(createdNanoseconds)
    writer.append(contentsOf: saltKey)
    return writer.bytes
  }

  var configRow: [UInt8] {
    var writer = ByteWriter(capacity: 32)
    for field in [capacityBytes, catalogBytes, inlinePayloadBytesMax, slotFileBytes] {
      writer.append(field)
    }
    return writer.bytes
  }
}

/// Row `format` of `meta`: u32 version, compatible, read-only-compatible and incompatible feature bits.
struct FormatRow {
  var version: UInt32
  var readOnlyCompatible: UInt32 = 0
  var incompatible: UInt32 = 0

  init(version: UInt32) { self.version = version }

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let version = reader.read(UInt32.self), reader.skip(4),
      let readOnlyCompatible = reader.read(UInt32.self), let incompatible = reader.read(UInt32.self)
    else { return nil }
    self.version = version
    self.readOnlyCompatible = readOnlyCompatible
    self.incompatible = incompatible
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 16)
    for field in [version, 0, readOnlyCompatible, incompatible] { writer.append(field) }
    return writer.bytes
  }
}
