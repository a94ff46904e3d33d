import KVCodec
import KVCore
import KVStore

/// A parser of stored bytes, given bytes that may be anything.
///
/// It may answer or refuse. A trap, a read out of bounds or an endless loop is a bug.
public enum FuzzTarget: String, CaseIterable, Sendable {
  case slotHeader = "slot-header"
  case identityRecord = "identity-record"
  case identityFile = "identity-file"
  case payloadFrames = "payload-frames"
  case catalogRows = "catalog-rows"
  case catalogPages = "catalog-pages"
  case traceLines = "trace-lines"
  case blockFile = "block-file"
  case modelFile = "model-file"
  case requestLogs = "request-logs"
  case serverReplies = "server-replies"
  case remoteChunk = "remote-chunk"

  /// Parses the bytes.
  public func run(_ bytes: UnsafeRawBufferPointer) {
    switch self {
    case .slotHeader: unsafe Self.parseSlotHeader(bytes)
    case .identityRecord: Self.parseIdentityRecord(unsafe Array(bytes))
    case .identityFile: unsafe Self.parseIdentityFile(bytes)
    case .payloadFrames: unsafe Self.parseFrames(bytes)
    case .catalogRows: CatalogFuzzer.shared.run(unsafe Array(bytes))
    case .catalogPages: unsafe Self.parsePages(bytes)
    case .traceLines: TraceFuzzer.run(unsafe Array(bytes))
    case .blockFile: BlockFileFuzzer.run(unsafe Array(bytes))
    case .modelFile: ModelFileFuzzer.run(unsafe Array(bytes))
    case .requestLogs: RequestFuzzer.run(unsafe Array(bytes))
    case .serverReplies: ReplyFuzzer.run(unsafe Array(bytes))
    case .remoteChunk: ChunkFuzzer.run(unsafe Array(bytes))
    }
  }

  /// Parses the bytes of a file of the corpus.
  public func run(_ bytes: [UInt8]) { unsafe bytes.withUnsafeBytes { unsafe run($0) } }

  /// A header as it is, and once more with the checksum that belongs to it: nobody guesses 64 bits.
  private static func parseSlotHeader(_ bytes: UnsafeRawBufferPointer) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 4096)
    defer { unsafe copy.deallocate() }
    unsafe copy.copyMemory(from: bytes)
    for pass in 0..<2 {
      if pass == 1 {
        let generation = unsafe SlotHeaderView(trusted: UnsafeRawBufferPointer(copy))?.generation
        guard unsafe SlotHeader.seal(copy, generation: generation ?? Generation(rawValue: 1)) != nil
        else { return }
      }
      guard let view = unsafe SlotHeaderView(UnsafeRawBufferPointer(copy)) else { continue }
      var sum = view.headerByteCount &+ view.payloadByteCount &+ view.storedByteCount &+ view.depth
      for index in 0..<view.regionCount { sum &+= Int(view.region(index).storedByteCount) }
      unsafe sum &+= view.words.reduce(0) { $0 &+ Int($1) } &+ view.extra.count
      unsafe sum &+= view.storeUUID.count &+ Int(view.priority) &+ Int(view.codec)
      keep(sum ^ Int(truncatingIfNeeded: view.expiry ^ view.created ^ view.blockKey.low))
    }
  }

  private static func parseIdentityRecord(_ record: [UInt8]) {
    keep(NamespaceIdentity.recordHasSalt(record) ? 1 : 0)
    guard let identity = NamespaceIdentity(record: record) else { return }
    keep(identity.payloadByteCountMax ^ identity.wordsPerBlock)
  }

  /// The file as it is; and each record of it with its own checksum.
  private static func parseIdentityFile(_ bytes: UnsafeRawBufferPointer) {
    keep(unsafe IdentityFileSummary(bytes).recordCount)
    guard bytes.count > 2 else { return }
    var writer = ByteWriter(capacity: bytes.count + 40)
    let body = unsafe Array(bytes.dropFirst(2))
    writer.append(UInt32(0x5349_564B))
    writer.append(UInt32(unsafe bytes[0]))
    writer.append(UInt32(body.count))
    writer.append(UInt32(unsafe bytes[1] % 4))
    writer.append(contentsOf: [UInt8](repeating: 7, count: 16))
    writer.append(unsafe body.withUnsafeBytes { xxh3Checksum($0) })
    writer.append(contentsOf: body)
    unsafe writer.bytes.withUnsafeBytes { keep(unsafe IdentityFileSummary($0).recordCount) }
  }

  /// Two bytes say how long the target is; what follows are frames.
  private static func parseFrames(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count > 2, let decoder = FrameDecoder() else { return }
    let byteCount = unsafe Int(bytes[0]) | Int(bytes[1]) << 8
    let frames = unsafe UnsafeRawBufferPointer(rebasing: bytes[2...])
    // Of exactly this length, so that a byte beyond is seen by a sanitizer.
    let target = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 1)
    defer { unsafe target.deallocate() }
    keep(unsafe decoder.decode(frames, into: target) ?? -1)
  }

  @inline(never) static func keep(_ value: Int) { sink.store(value) }

  private static let sink = Sink()
}
