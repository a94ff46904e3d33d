import KVAdmin
import KVCore
import KVStore

/// A portable file of blocks, from bytes.
enum BlockFileFuzzer {
  /// The file as it is; with the checksums that belong to its records; and with the keys that follow from its blocks as well.
  static func run(_ bytes: [UInt8]) {
    for (sums, keys) in [(false, false), (true, false), (true, true)] {
      let summary = BlockFileSummary(sums ? sealed(bytes, keys: keys) : bytes)
      FuzzTarget.keep(summary.blockCount ^ summary.payloadByteCount)
    }
  }

  private static let startByteCount = 16

  private static func integer(_ bytes: [UInt8], _ offset: Int) -> Int {
    guard offset + 4 <= bytes.count else { return 0 }
    return bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | Int($1) }
  }

  /// Puts behind each record its checksum, and into each block its key; the records lie where their lengths say.
  private static func sealed(_ file: [UInt8], keys: Bool) -> [UInt8] {
    var bytes = file
    var before: UInt64 = 0
    var start = 0
    let recordByteCount = integer(bytes, 12)
    var byteCount = startByteCount + recordByteCount
    let record = Array(bytes.dropFirst(startByteCount).prefix(recordByteCount))
    let identity = NamespaceIdentity(record: record)
    var path: [BlockKey] = []
    while start + byteCount + 8 <= bytes.count {
      if keys, start > 0, let identity, identity.firstInvalidArgument() == nil {
        putKey(&bytes, start, byteCount, identity, record, &path)
      }
      var sum = ByteWriter(capacity: 8)
      sum.append(before)
      before = sum.bytes.withUnsafeBytes { sum in
        bytes.withUnsafeBytes { all in
          xxh3Checksum(
            sum,
            UnsafeRawBufferPointer(rebasing: all[start..<start + byteCount]),
            UnsafeRawBufferPointer(rebasing: all[0..<0])
          )
        }
      }
      var own = ByteWriter(capacity: 8)
      own.append(before)
      bytes.replaceSubrange(start + byteCount..<start + byteCount + 8, with: own.bytes)
      start += byteCount + 8
      let next = integer(bytes, start)
      byteCount = next == 0 ? 20 : 4 + next
    }
    return bytes
  }

  /// The key of the block whose record begins at `start`, as far as the record is one.
  private static func putKey(
    _ bytes: inout [UInt8],
    _ start: Int,
    _ byteCount: Int,
    _ identity: NamespaceIdentity,
    _ record: [UInt8],
    _ path: inout [BlockKey]
  ) {
    let depth = min(integer(bytes, start + 4), path.count)
    let extraByteCount = integer(bytes, start + 24)
    let words = start + 28 + 4 * identity.regionByteCounts.count
    let extra = words + 4 * identity.wordsPerBlock
    guard extra + extraByteCount <= start + byteCount else { return }
    path.removeLast(path.count - depth)
    let chain = KeyChain(
      rootKey: record.withUnsafeBytes { xxh3Key($0) },
      identityMode: identity.identityMode,
      wordsPerBlock: identity.wordsPerBlock
    )
    let key = bytes.withUnsafeBytes { all -> BlockKey? in
      guard let base = all.baseAddress else { return nil }
      return chain.key(
        after: path.last ?? chain.rootKey,
        words: base + words,
        extra: UnsafeRawBufferPointer(rebasing: all[extra..<extra + extraByteCount])
      )
    }
    guard let key else { return }
    var writer = ByteWriter(capacity: 16)
    writer.append(key)
    bytes.replaceSubrange(start + 8..<start + 24, with: writer.bytes)
    path.append(key)
  }

  /// Files of a few blocks under each identity: a chain, and a fork; the end record says how many they are.
  static func seeds(_ identities: [NamespaceIdentity]) -> [[UInt8]] {
    var files: [[UInt8]] = []
    for var identity in identities {
      identity.salt = []
      identity.regionByteCounts = [3, 5]
      identity.extraByteCountMax = 4
      if identity.identityMode == .tokens { identity.tokensPerBlock = 2 }
      for depths in [[], [0], [0, 1, 2], [0, 1, 1, 0]] {
        files.append(sealed(file(identity, depths), keys: true))
      }
    }
    return files
  }

  private static func file(_ identity: NamespaceIdentity, _ depths: [Int]) -> [UInt8] {
    let record = identity.encoded(saltKey: [])
    let sum = [UInt8](repeating: 0, count: 8)
    var writer = ByteWriter()
    writer.append(contentsOf: Array("KVSBLK".utf8) + [1, 10])
    writer.append(UInt32(1))
    writer.append(UInt32(record.count))
    writer.append(contentsOf: record + sum)
    for (index, depth) in depths.enumerated() {
      let extra = [UInt8](repeating: 9, count: index % 3)
      writer.append(UInt32(24 + 8 + 4 * identity.wordsPerBlock + extra.count + 8))
      writer.append(UInt32(depth))
      writer.append(contentsOf: sum + sum)
      writer.append(UInt32(extra.count))
      writer.append(UInt32(3))
      writer.append(UInt32(5))
      for word in 0..<identity.wordsPerBlock { writer.append(UInt32(100 * index + word)) }
      writer.append(contentsOf: extra + [1, 2, 3, 4, 5, 6, 7, 8] + sum)
    }
    writer.append(UInt32(0))
    writer.append(UInt64(depths.count))
    writer.append(UInt64(8 * depths.count))
    writer.append(contentsOf: sum)
    return writer.bytes
  }
}
