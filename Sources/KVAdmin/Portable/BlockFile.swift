internal import KVCore
internal import KVStore

/// A portable file of blocks (docs/file-format.md, "Exported blocks"): an identity record, then blocks, each behind its parent.
enum BlockFile {
  static let magic: [UInt8] = Array("KVSBLK".utf8) + [1, 10]
  static let version: UInt32 = 1
  /// Magic, version, byte count of the record.
  static let startByteCount = 16
  /// Of a larger record nothing is read.
  static let recordByteCountMax = 1 << 20
  /// Bytes of a block's record before its region byte counts, the leading byte count not included.
  static let fixedByteCount = 24

  /// Magic, version, record.
  static func header(_ record: [UInt8]) -> [UInt8] {
    var writer = ByteWriter(capacity: startByteCount + record.count)
    writer.append(contentsOf: magic)
    writer.append(version)
    writer.append(UInt32(record.count))
    writer.append(contentsOf: record)
    return writer.bytes
  }

  /// What ends a whole file.
  static func end(blockCount: Int, payloadByteCount: Int) -> [UInt8] {
    var writer = ByteWriter(capacity: 20)
    writer.append(UInt32(0))
    writer.append(UInt64(blockCount))
    writer.append(UInt64(payloadByteCount))
    return writer.bytes
  }
}

/// The checksum of a file's records: each covers the one before it, so the last one covers the whole file.
struct BlockFileChecksum {
  /// Of the last record.
  private(set) var value: UInt64 = 0

  /// Takes the next record; returns its checksum as it stands in the file.
  mutating func add(_ fields: [UInt8], _ payload: [UInt8] = []) -> [UInt8] {
    var before = ByteWriter(capacity: 8)
    before.append(value)
    value = unsafe before.bytes.withUnsafeBytes { before in
      unsafe fields.withUnsafeBytes { fields in
        unsafe payload.withUnsafeBytes { xxh3Checksum(before, fields, $0) }
      }
    }
    var own = ByteWriter(capacity: 8)
    own.append(value)
    return own.bytes
  }
}

/// A block in a portable file, its payload excepted.
struct BlockFileEntry {
  /// Blocks before it: of the path down to the block that stands before it in the file, that many stay.
  var depth: Int
  var blockKey: BlockKey
  var regionByteCounts: [Int]
  var words: [UInt32]
  var extra: [UInt8]

  var payloadByteCount: Int { regionByteCounts.reduce(0, +) }

  /// The largest that `decode` takes.
  static func byteCountMax(_ identity: NamespaceIdentity) -> Int {
    BlockFile.fixedByteCount + 4 * (identity.regionByteCounts.count + identity.wordsPerBlock)
      + identity.extraByteCountMax + identity.regionByteCounts.reduce(0, +)
  }

  /// With the leading count of all that follows but the checksum.
  var encoded: [UInt8] {
    let byteCount =
      BlockFile.fixedByteCount + 4 * (regionByteCounts.count + words.count) + extra.count
      + payloadByteCount
    var writer = ByteWriter(capacity: byteCount - payloadByteCount + 4)
    writer.append(UInt32(byteCount))
    writer.append(UInt32(depth))
    writer.append(blockKey)
    writer.append(UInt32(extra.count))
    for count in regionByteCounts { writer.append(UInt32(count)) }
    for word in words { writer.append(word) }
    writer.append(contentsOf: extra)
    return writer.bytes
  }

  /// From what follows the leading count; `payloadOffset` is where the payload begins in it.
  static func decode(
    _ bytes: [UInt8],
    _ identity: NamespaceIdentity
  ) -> (entry: BlockFileEntry, payloadOffset: Int)? {
    unsafe bytes.withUnsafeBytes { buffer in
      var reader = unsafe ByteReader(buffer)
      guard let depth = reader.read(UInt32.self), let blockKey = reader.readKey(),
        let extraByteCount = reader.read(UInt32.self),
        Int(extraByteCount) <= identity.extraByteCountMax
      else { return nil }
      var counts: [Int] = []
      for bound in identity.regionByteCounts {
        guard let count = reader.read(UInt32.self).map(Int.init),
          identity.regionsAreVariable ? count <= bound : count == bound
        else { return nil }
        counts.append(count)
      }
      var words: [UInt32] = []
      for _ in 0..<identity.wordsPerBlock {
        guard let word = reader.read(UInt32.self) else { return nil }
        words.append(word)
      }
      guard let extra = reader.readBytes(Int(extraByteCount)) else { return nil }
      let entry = BlockFileEntry(
        depth: Int(depth),
        blockKey: blockKey,
        regionByteCounts: counts,
        words: words,
        extra: extra
      )
      guard reader.remainingByteCount == entry.payloadByteCount else { return nil }
      return (entry, reader.offset)
    }
  }
}
