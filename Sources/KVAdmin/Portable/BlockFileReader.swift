internal import KVCore
internal import KVStore

/// Reads the records of a portable file one after the other; the file may be anything.
struct BlockFileReader {
  /// What ended it early.
  var problem: ImportProblem?
  /// Where the record begins that was read last.
  private(set) var recordOffset = 0
  private var offset = 0
  private var checksum = BlockFileChecksum()
  private var identity: NamespaceIdentity?
  private var totals: (blockCount: UInt64, payloadByteCount: UInt64)?

  /// The identity of the blocks; nil with a problem.
  mutating func readIdentity(_ read: (Int) -> [UInt8]) -> NamespaceIdentity? {
    let start = take(BlockFile.startByteCount, read)
    let magic = BlockFile.magic
    guard start.starts(with: magic) else {
      let isCut = start.count < BlockFile.startByteCount && magic.starts(with: start)
      return refuse(isCut && !start.isEmpty ? .truncated : .notABlockFile)
    }
    guard start.count == BlockFile.startByteCount else { return refuse(.truncated) }
    let version = integer(start[8..<12], UInt32.self)
    guard version == BlockFile.version else { return refuse(.version(version)) }
    let byteCount = Int(integer(start[12...], UInt32.self))
    guard byteCount <= BlockFile.recordByteCountMax else { return refuse(.damaged) }
    let record = take(byteCount, read)
    let sum = take(8, read)
    guard record.count == byteCount, sum.count == 8 else { return refuse(.truncated) }
    guard checksum.add(start + record) == sum else { return refuse(.damaged) }
    guard !NamespaceIdentity.recordHasSalt(record),
      let identity = NamespaceIdentity(record: record), identity.firstInvalidArgument() == nil
    else { return refuse(.identity) }
    self.identity = identity
    return identity
  }

  /// The next block, whose payload begins at `payloadOffset` of `bytes`; nil at the end, or with a problem.
  mutating func next(
    _ read: (Int) -> [UInt8]
  ) -> (entry: BlockFileEntry, bytes: [UInt8], payloadOffset: Int)? {
    guard let identity else { return nil }
    recordOffset = offset
    let count = take(4, read)
    guard count.count == 4 else { return refuse(.truncated) }
    let byteCount = Int(integer(count[...], UInt32.self))
    guard byteCount > 0 else { return readEnd(count, read) }
    guard byteCount <= BlockFileEntry.byteCountMax(identity) else { return refuse(.damaged) }
    let body = take(byteCount, read)
    let sum = take(8, read)
    guard body.count == byteCount, sum.count == 8 else { return refuse(.truncated) }
    guard checksum.add(count, body) == sum,
      let (entry, payloadOffset) = BlockFileEntry.decode(body, identity)
    else { return refuse(.damaged) }
    return (entry, body, payloadOffset)
  }

  /// Whether the end record says what was read, and is the end.
  mutating func checkTotals(
    blockCount: Int,
    payloadByteCount: Int,
    _ read: (Int) -> [UInt8]
  ) {
    let isRight =
      totals?.blockCount == UInt64(blockCount)
      && totals?.payloadByteCount == UInt64(payloadByteCount)
    if !isRight || !take(1, read).isEmpty { problem = .damaged }
  }

  private mutating func readEnd<T>(_ count: [UInt8], _ read: (Int) -> [UInt8]) -> T? {
    let body = take(16, read)
    let sum = take(8, read)
    guard body.count == 16, sum.count == 8 else { return refuse(.truncated) }
    guard checksum.add(count + body) == sum else { return refuse(.damaged) }
    totals = (integer(body[..<8], UInt64.self), integer(body[8...], UInt64.self))
    return nil
  }

  private mutating func refuse<T>(_ problem: ImportProblem) -> T? {
    self.problem = problem
    return nil
  }

  private mutating func take(_ count: Int, _ read: (Int) -> [UInt8]) -> [UInt8] {
    let bytes = count == 0 ? [] : read(count)
    offset += bytes.count
    return bytes
  }

  private func integer<T: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>, _: T.Type) -> T {
    bytes.reversed().reduce(0) { $0 << 8 | T($1) }
  }
}
