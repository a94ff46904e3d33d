internal import KVCore

/// A report as bytes: numbers by name, so that processes with different versions of the library understand each other.
///
/// ```
/// magic (8) · server: length u16, bytes · count u16 · count × (name: length u8, bytes; value u64)
/// look-ups: count u16 · count × (namespace u32 · blocks, found, fetched u32 · key 16 · ended u64 · cause: length u8, bytes)
/// XXH3 of all before (8)
/// ```
extension RemoteReport {
  private static let magic: [UInt8] = Array("KVSRRP".utf8) + [1, 10]
  static let byteCountMax = 65_536

  private static let numbers:
    [(
      String, any WritableKeyPath<RemoteStatistics, UInt64> & Sendable
    )] = [
      ("look_ups", \.lookUps), ("look_ups_found", \.lookUpsFound), ("rounds", \.lookUpRounds),
      ("chunks_found", \.chunksFound), ("chunks_fetched", \.chunksFetched),
      ("bytes_fetched", \.bytesFetched), ("blocks_fetched", \.blocksFetched),
      ("chunks_sent", \.chunksSent), ("bytes_sent", \.bytesSent),
      ("blocks_demoted", \.blocksDemoted), ("blocks_lost", \.blocksLost),
      ("chunks_existed", \.chunksExisted), ("objects_removed", \.objectsRemoved),
      ("breaker_opened", \.breakerOpened), ("bytes_per_second", \.bytesPerSecond),
      ("round_nanoseconds", \.roundNanoseconds), ("purges_pending", \.purgesPending),
      ("state_since", \.stateSince), ("answered_at", \.answeredAt), ("paused_until", \.pausedUntil),
      ("write_bytes_per_day", \.writeBytesPerDay), ("write_bytes_left", \.writeBytesLeft),
      ("sends_queued", \.sendsQueued), ("look_ups_queued", \.lookUpsQueued),
    ]

  var encoded: [UInt8] {
    var values = Self.numbers.map { ($0.0, statistics[keyPath: $0.1]) }
    values += statistics.misses.map { ("miss." + $0.key.rawValue, $0.value) }
    values += statistics.drops.map { ("drop." + $0.key.rawValue, $0.value) }
    values += [
      ("state." + statistics.state.rawValue, 1), ("breaker_open", statistics.isBreakerOpen ? 1 : 0),
      ("paused", statistics.isPaused ? 1 : 0), ("writes", UInt64(writes.rawValue)),
      ("matches_always", matchesAlways ? 1 : 0),
    ]
    values += (statistics.lastFailure?.rawValue).map { [("failure." + $0, 1)] } ?? []
    values += (statistics.pauseCause?.rawValue).map { [("pause." + $0, 1)] } ?? []
    var writer = ByteWriter(capacity: 4096)
    writer.append(contentsOf: Self.magic)
    let place = Array(server.utf8.prefix(1024))
    writer.append(UInt16(place.count))
    writer.append(contentsOf: place)
    writer.append(UInt16(values.count))
    // In one order, so that nothing is written when nothing has changed.
    for (name, value) in values.sorted(by: { $0.0 < $1.0 }) {
      writer.append(UInt8(name.utf8.count))
      writer.append(contentsOf: Array(name.utf8))
      writer.append(value)
    }
    writer.append(UInt16(lookUps.count))
    for lookUp in lookUps {
      writer.append(lookUp.namespace.rawValue)
      for count in [lookUp.blockCount, lookUp.foundBlockCount, lookUp.fetchedBlockCount] {
        writer.append(UInt32(clamping: count))
      }
      writer.append(lookUp.blockKey)
      writer.append(lookUp.endedAt)
      let cause = Array((lookUp.cause?.rawValue ?? "").utf8)
      writer.append(UInt8(cause.count))
      writer.append(contentsOf: cause)
    }
    writer.append(unsafe writer.bytes.withUnsafeBytes { xxh3Checksum($0) })
    return writer.bytes
  }

  /// nil for bytes that are no report, or one that was being written.
  init?(_ bytes: [UInt8]) {
    guard bytes.count > 16, let report = unsafe bytes.withUnsafeBytes({ unsafe Self.decode($0) })
    else { return nil }
    self = report
  }

  private static func decode(_ bytes: UnsafeRawBufferPointer) -> RemoteReport? {
    let body = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - 8)])
    var sum = unsafe ByteReader(bytes, offset: body.count)
    guard sum.read(UInt64.self) == xxh3Checksum(body) else { return nil }
    var reader = unsafe ByteReader(body)
    guard reader.readBytes(8) == magic, let placeCount = reader.read(UInt16.self),
      let place = reader.readBytes(Int(placeCount)), let count = reader.read(UInt16.self)
    else { return nil }
    var values: [String: UInt64] = [:]
    for _ in 0..<count {
      guard let name = reader.readText(), let value = reader.read(UInt64.self) else { return nil }
      values[name] = value
    }
    guard let lookUpCount = reader.read(UInt16.self) else { return nil }
    var lookUps: [RemoteLookUp] = []
    for _ in 0..<lookUpCount {
      guard let lookUp = RemoteLookUp(&reader) else { return nil }
      lookUps.append(lookUp)
    }
    return RemoteReport(
      server: String(decoding: place, as: UTF8.self),
      writes: RemoteWrites(rawValue: Int(clamping: values["writes"] ?? 0)) ?? .off,
      matchesAlways: values["matches_always"] == 1,
      statistics: statistics(values),
      lookUps: lookUps
    )
  }

  private static func statistics(_ values: [String: UInt64]) -> RemoteStatistics {
    func named<Value: RawRepresentable<String> & CaseIterable>(_ prefix: String) -> Value? {
      Value.allCases.first { values[prefix + $0.rawValue] != nil }
    }
    var statistics = RemoteStatistics()
    for (name, path) in numbers { statistics[keyPath: path] = values[name] ?? 0 }
    for cause in RemoteStatistics.Cause.allCases {
      statistics.misses[cause] = values["miss." + cause.rawValue]
      statistics.drops[cause] = values["drop." + cause.rawValue]
    }
    statistics.state = named("state.") ?? .idle
    statistics.lastFailure = named("failure.")
    statistics.pauseCause = named("pause.")
    statistics.isBreakerOpen = values["breaker_open"] == 1
    statistics.isPaused = values["paused"] == 1
    return statistics
  }
}

extension RemoteLookUp {
  fileprivate init?(_ reader: inout ByteReader) {
    guard let namespace = reader.read(UInt32.self), let blockCount = reader.read(UInt32.self),
      let found = reader.read(UInt32.self), let fetched = reader.read(UInt32.self),
      let key = reader.readKey(), let endedAt = reader.read(UInt64.self),
      let cause = reader.readText()
    else { return nil }
    self.init(
      namespace: NamespaceID(rawValue: namespace),
      blockCount: Int(blockCount),
      blockKey: key
    )
    foundBlockCount = Int(found)
    fetchedBlockCount = Int(fetched)
    self.endedAt = endedAt
    self.cause = RemoteStatistics.Cause(rawValue: cause)
  }
}

extension ByteReader {
  /// A length of one byte, and so many of text.
  fileprivate mutating func readText() -> String? {
    guard let count = read(UInt8.self), let bytes = readBytes(Int(count)) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }
}
