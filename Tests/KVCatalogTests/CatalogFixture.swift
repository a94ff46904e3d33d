import Foundation
import KVCatalog
import KVCore

/// A catalog in a folder of its own, and short ways to fill it.
final class CatalogFixture {
  let folder: String
  var options: CatalogOptions
  var catalog: Catalog
  var path: String { options.path }

  static let meta = StoreMeta(
    storeUUID: Array(0..<16),
    createdNanoseconds: 77,
    saltKey: Array(100..<132),
    capacityBytes: 1 << 30,
    catalogBytes: 64 << 20,
    inlinePayloadBytesMax: 16_384,
    slotFileBytes: 1 << 20
  )

  static func makeFolder() throws -> String {
    let folder = NSTemporaryDirectory() + "kvcatalog-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    return folder
  }

  init(_ change: (inout CatalogOptions) -> Void = { _ in }) throws {
    folder = try Self.makeFolder()
    options = CatalogOptions(path: folder + "/catalog.mdb")
    options.mapByteCount = 64 << 20
    options.durability = .buffered
    change(&options)
    catalog = try Catalog(options, create: Self.meta)
  }

  deinit {
    catalog.close()
    try? FileManager.default.removeItem(atPath: folder)
  }

  func reopen() throws {
    catalog.close()
    catalog = try Catalog(options)
  }

  func write<R>(
    _ body: (WriteTransaction) throws(CatalogError) -> R
  ) throws(CatalogError) -> R {
    try catalog.write(timeNanoseconds: 1_000, body)
  }

  func namespace(
    _ number: UInt64,
    slotByteCount: UInt32
  ) throws(CatalogError) -> NamespaceID {
    try write { (txn) throws(CatalogError) in
      try txn.createNamespace(
        NamespaceRow(
          rootKey: BlockKey(high: 0, low: number),
          identityRecord: [UInt8(number)],
          slotByteCount: slotByteCount,
          headerByteCount: 4096,
          wordsPerBlock: 1
        )
      )
    }
  }

  /// Every byte of the file that holds the rows.
  func fileBytes() throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: path))) }
}

/// A key that depends on the whole path, like the real ones.
func testKey(after parent: BlockKey, _ word: UInt32) -> BlockKey {
  let chain = KeyChain(rootKey: parent, identityMode: .tokens, wordsPerBlock: 1)
  var word = word
  return unsafe withUnsafeBytes(of: &word) { bytes in
    guard let start = bytes.baseAddress else { return parent }
    return unsafe chain.key(
      after: parent,
      words: start,
      extra: UnsafeRawBufferPointer(start: nil, count: 0)
    )
  }
}

extension WriteTransaction {
  /// Publishes a block of one word.
  func publish(
    _ namespace: NamespaceID,
    _ blockKey: BlockKey,
    parent: BlockPosition,
    word: UInt32,
    extra: [UInt8] = [],
    place: BlockPlace,
    payload: [UInt8]? = nil,
    priority: UInt8 = 9,
    owner: OwnerID = OwnerID(rawValue: 1)
  ) throws(CatalogError) -> PublishOutcome {
    let words = [UInt8](littleEndianBytes(word))
    let result: Result<PublishOutcome, CatalogError> = unsafe words.withUnsafeBytes { words in
      unsafe extra.withUnsafeBytes { extra in
        unsafe (payload ?? []).withUnsafeBytes { payloadBytes in
          var block = unsafe NewBlock(
            blockKey: blockKey,
            parent: parent,
            words: words,
            extra: extra,
            payloadByteCount: 1000,
            createdSeconds: 7,
            place: place,
            inlinePayload: payload == nil ? nil : payloadBytes
          )
          block.blockExpiry = .absolute(5_000)
          block.priority = priority
          return Result { () throws(CatalogError) in
            try self.publish(namespace, block, owner: owner)
          }
        }
      }
    }
    return try result.get()
  }
}

func littleEndianBytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
  (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
}

func bigEndianBytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
  littleEndianBytes(value).reversed()
}

func inlinePlace(storedByteCount: UInt32 = 3) -> BlockPlace {
  BlockPlace(
    tier: .disk,
    isInline: true,
    file: 0,
    slot: 0,
    storedByteCount: storedByteCount,
    generation: Generation(rawValue: 1),
    headerChecksum: 2
  )
}

func slotPlace(_ slot: SlotAddress) -> BlockPlace {
  BlockPlace(
    tier: slot.tier,
    isInline: false,
    file: slot.file,
    slot: slot.slot,
    storedByteCount: 900,
    generation: Generation(rawValue: 1),
    headerChecksum: 2
  )
}

extension WriteTransaction {
  /// Evicts a namespace's own blocks by recency until it is within its quota, or none may go, as the store does.
  func enforceQuota(
    _ id: NamespaceID,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> RemovedSummary {
    var removed = RemovedSummary()
    while let excess = try quotaExcess(id) {
      let round = try evict(
        pools: [excess.pool],
        blockCount: excess.blockCount,
        reason: .quota,
        isProtected: isProtected
      )
      if round.ranges.isEmpty { break }
      removed.add(round)
    }
    return removed
  }
}
