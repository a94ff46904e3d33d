import KVCatalog
import KVCodec
import KVCore

/// What a fuzzer begins with: bytes as the store writes them.
extension FuzzTarget {
  /// Inputs that are parsed to their end, and some noise; always the same ones.
  public var seeds: [[UInt8]] {
    switch self {
    case .slotHeader: Self.slotHeaders
    case .identityRecord: Self.identities.map { $0.encoded(saltKey: [1, 2, 3]) }
    case .identityFile: Self.identityFiles
    case .payloadFrames: Self.frames
    case .catalogRows: Self.noise(count: 60, byteCount: 160)
    case .catalogPages: Self.pages
    case .traceLines: Self.traces.map { Array($0.utf8) }
    case .blockFile: BlockFileFuzzer.seeds(Self.identities)
    case .modelFile: ModelFileFuzzer.seeds
    case .requestLogs: RequestFuzzer.seeds
    case .serverReplies: ReplyFuzzer.seeds
    case .remoteChunk: ChunkFuzzer.seeds
    }
  }

  private static func noise(count: Int, byteCount: Int) -> [[UInt8]] {
    var state: UInt64 = 1
    return (0..<count).map { _ in
      (0..<byteCount).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
      }
    }
  }

  private static var slotHeaders: [[UInt8]] {
    (0..<6).map { number in
      var header = SlotHeader()
      header.namespaceID = NamespaceID(rawValue: UInt32(number))
      header.generation = Generation(rawValue: 7)
      header.regions = (0..<number).map { _ in
        SlotHeader.Region(rawByteCount: 100, storedByteCount: 90, checksum: 5)
      }
      header.words = [UInt8](repeating: 3, count: 16 * number)
      header.extra = [UInt8](repeating: 9, count: number % 3)
      header.payloadByteCount = UInt32(100 * number)
      var bytes = [UInt8](repeating: 0, count: header.usedByteCount + number)
      bytes.withUnsafeMutableBytes { _ = header.encode(into: $0) }
      return bytes
    }
  }

  static var identities: [NamespaceIdentity] {
    var plain = NamespaceIdentity()
    plain.regionByteCounts = [4096, 4096, 12, 1]
    var full = plain
    full.modelName = "a model"
    full.weightsDigest = [1, 2, 3, 4]
    full.kvDtype = "bf16"
    full.rope = "theta=10000"
    full.salt = [9, 9]
    full.shape.layerCount = 28
    full.parallelism.tensorSize = 8
    full.parallelism.tensorRank = 3
    var digest = plain
    digest.identityMode = .digest
    digest.digestByteCount = 32
    digest.regionsAreVariable = true
    return [plain, full, digest]
  }

  /// Bodies of each kind; the target puts the checksum before them.
  private static var identityFiles: [[UInt8]] {
    var store = ByteWriter()
    store.append(UInt32(1))
    for value in 0..<9 { store.append(UInt64(value)) }
    var removal = ByteWriter()
    removal.append(UInt32(2))
    for value in 0..<6 { removal.append(UInt64(value)) }
    let identity = identities[1].encoded(saltKey: [1])
    return [[1, 0] + identity, [0, 1] + store.bytes, [0, 2] + removal.bytes]
  }

  private static var frames: [[UInt8]] {
    var inputs: [[UInt8]] = []
    for type in ElementType.allCases {
      for byteCount in [512, 4099] {
        // Smooth enough to shrink.
        let payload = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 % 16 / 3) }
        let format = PayloadFormat(elementType: type, rowByteCount: 32 * type.byteCount)
        guard let encoder = PayloadEncoder() else { return [] }
        var target = [UInt8](repeating: 0, count: PayloadEncoder.bound([byteCount]))
        let counts = payload.withUnsafeBytes { payload in
          target.withUnsafeMutableBytes {
            encoder.encode(payload, regionByteCounts: [byteCount], format, into: $0)
          }
        }
        guard let count = counts?.reduce(0, +) else { continue }
        inputs.append([UInt8(byteCount & 255), UInt8(byteCount >> 8)] + target.prefix(count))
      }
    }
    return inputs
  }

  /// Rows of the sample catalog, each laid out as a page by itself; and pages of noise.
  private static var pages: [[UInt8]] {
    var inputs: [[UInt8]] = noise(count: 4, byteCount: 300).map { [0] + $0 }
    for (table, rows) in CatalogFuzzer.shared.rows.enumerated() where table > 0 {
      for row in rows.prefix(4) {
        inputs.append(
          [UInt8(table) << 1 | 1, UInt8(row.key.count)] + row.key + row.value.dropFirst(8)
        )
      }
    }
    return inputs
  }

  private static let traces = [
    #"{"timestamp": 1, "input_length": 9, "hash_ids": [1, 2, 3], "output_length": 4}"#,
    #"{"timestamp": 2, "token_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9], "block_size": 4}"#,
    #"{"x": {"y": [1, "\"", null, true, -1.5e3]}, "timestamp": 3, "input_length": 1, "hash_ids": []}"#,
    "{\"timestamp\": 4, \"session\": 7, \"turn\": 2, \"input_length\": 2, \"hash_ids\": [18446744073709551615]}\n\n{}\n",
  ]
}
