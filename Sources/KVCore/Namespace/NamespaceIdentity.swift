/// Everything that changes the bytes of a block, or who may see it.
///
/// Two identities that differ in any field are two namespaces and never share a block. The canonical encoding is in
/// docs/file-format.md, "Identity record"; its hash is the root of the namespace's key chain.
public struct NamespaceIdentity: Sendable, Hashable {
  /// By token ids, or by the caller's digests.
  public var identityMode: IdentityMode = .tokens
  /// Tokens of a full block.
  public var tokensPerBlock: Int = 16
  /// Bytes of the caller's digest (32...64, a multiple of 4) in digest mode, else 0.
  public var digestByteCount: Int = 0
  /// Regions may be shorter than `regionByteCounts` says (opaque engine blobs).
  public var regionsAreVariable: Bool = false
  /// Bytes of each region, in payload order.
  public var regionByteCounts: [Int] = []
  /// Regions of layers that look back a while only; what is in no group belongs to the whole prefix.
  public var groups: [KVCacheGroup] = []
  /// Name of the model.
  public var modelName: String = ""
  /// Digest of the weights as loaded.
  public var weightsDigest: [UInt8] = []
  /// Digest of the adapter's content.
  public var adapterDigest: [UInt8] = []
  /// Digest of the tokenizer.
  public var tokenizerDigest: [UInt8] = []
  /// Element type of the KV.
  public var kvDtype: String = ""
  /// Scales and granularity of quantised KV.
  public var kvQuantization: String = ""
  /// Order of layer, K/V, head, token, head-dim in the payload.
  public var layout: String = ""
  /// RoPE parameters.
  public var rope: String = ""
  /// Engine, version, backend, instruction set.
  public var engineFormat: String = ""
  /// Anything else that must match.
  public var engineBytes: [UInt8] = []
  /// Layers, KV heads, head size.
  public var shape: Shape = Shape()
  /// Rank and size of each kind of parallelism.
  public var parallelism: Parallelism = Parallelism()
  /// A tenant's secret; only a keyed digest of it is encoded.
  public var salt: [UInt8] = []
  /// The most extra bytes that one block may carry.
  public var extraByteCountMax: Int = 256
  /// Set when the blocks are side sections of another namespace's.
  public var sideSection: SideSection?

  /// Layers, KV heads and head size of a model.
  public struct Shape: Sendable, Hashable {
    /// Layers.
    public var layerCount: Int = 0
    /// KV heads.
    public var kvHeadCount: Int = 0
    /// Elements of a head.
    public var headSize: Int = 0
    /// All zero.
    public init() {}
  }

  /// Rank and size of each kind of parallelism.
  public struct Parallelism: Sendable, Hashable {
    /// Tensor-parallel rank.
    public var tensorRank: Int = 0
    /// Tensor-parallel size.
    public var tensorSize: Int = 1
    /// Pipeline-parallel rank.
    public var pipelineRank: Int = 0
    /// Pipeline-parallel size.
    public var pipelineSize: Int = 1
    /// Context-parallel rank.
    public var contextRank: Int = 0
    /// Context-parallel size.
    public var contextSize: Int = 1
    /// Rank 0 of 1 everywhere.
    public init() {}
  }

  /// An empty identity; set at least `regionByteCounts`.
  public init() {}

  /// Words (u32) that prove a block: its token ids, or its digest.
  package var wordsPerBlock: Int {
    identityMode == .tokens ? tokensPerBlock : digestByteCount / 4
  }

  /// The largest payload of a block, in bytes.
  public var payloadByteCountMax: Int { regionByteCounts.reduce(0, +) }

  /// The field that is out of range, or nil.
  package func firstInvalidArgument() -> Argument? {
    guard (1...65_536).contains(tokensPerBlock) else { return .tokensPerBlock }
    switch identityMode {
    case .tokens: guard digestByteCount == 0 else { return .digestByteCount }
    case .digest:
      guard (32...64).contains(digestByteCount), digestByteCount % 4 == 0 else {
        return .digestByteCount
      }
    }
    guard (1...4096).contains(regionByteCounts.count) else { return .regionCount }
    var sum = 0
    for byteCount in regionByteCounts {
      guard (1...1 << 30).contains(byteCount) else { return .regionByteCount }
      sum += byteCount
    }
    guard sum <= 1 << 30 else { return .regionByteCount }
    guard groups.areValid(regionCount: regionByteCounts.count) else { return .groups }
    guard sideSection?.isValid ?? true else { return .sectionName }
    let ranks = [
      (parallelism.tensorRank, parallelism.tensorSize),
      (parallelism.pipelineRank, parallelism.pipelineSize),
      (parallelism.contextRank, parallelism.contextSize),
    ]
    guard ranks.allSatisfy({ $1 >= 1 && $1 <= Int(UInt32.max) && (0..<$1).contains($0) }) else {
      return .parallelism
    }
    guard (0...16_384).contains(extraByteCountMax) else { return .extraByteCount }
    let texts = [modelName, kvDtype, kvQuantization, layout, rope, engineFormat]
    let blobs = [weightsDigest, adapterDigest, tokenizerDigest, engineBytes, salt]
    guard texts.allSatisfy({ $0.utf8.count <= 4096 }), blobs.allSatisfy({ $0.count <= 4096 }) else {
      return .identityFieldTooLong
    }
    return nil
  }

  /// The canonical record, with the salt's digest under `saltKey` in place of the salt.
  package func encoded(saltKey: [UInt8]) -> [UInt8] {
    encoded(
      saltDigest: salt.isEmpty ? [] : SHA256.authenticationCode(key: saltKey, message: salt)
    )
  }

  private func encoded(saltDigest: [UInt8]) -> [UInt8] {
    var record = ByteWriter(capacity: 512)
    func field(_ tag: UInt16, _ bytes: [UInt8]) {
      record.append(tag)
      record.append(UInt32(bytes.count))
      record.append(contentsOf: bytes)
    }
    func integers(_ values: Int...) -> [UInt8] {
      var writer = ByteWriter()
      for value in values { writer.append(UInt32(truncatingIfNeeded: value)) }
      return writer.bytes
    }
    var regions = ByteWriter()
    for byteCount in regionByteCounts { regions.append(UInt64(byteCount)) }
    field(1, integers(1))
    field(2, integers(Int(identityMode.rawValue)))
    field(3, integers(tokensPerBlock))
    field(4, integers(digestByteCount))
    field(5, integers(regionsAreVariable ? 1 : 0))
    field(6, regions.bytes)
    field(7, Array(modelName.utf8))
    field(8, weightsDigest)
    field(9, adapterDigest)
    field(10, tokenizerDigest)
    field(11, Array(kvDtype.utf8))
    field(12, Array(kvQuantization.utf8))
    field(13, Array(layout.utf8))
    field(14, Array(rope.utf8))
    field(15, Array(engineFormat.utf8))
    field(16, engineBytes)
    field(17, integers(shape.layerCount, shape.kvHeadCount, shape.headSize))
    field(
      18,
      integers(
        parallelism.tensorRank,
        parallelism.tensorSize,
        parallelism.pipelineRank,
        parallelism.pipelineSize,
        parallelism.contextRank,
        parallelism.contextSize
      )
    )
    field(19, saltDigest)
    field(20, integers(extraByteCountMax))
    // Left out where there are none, so that older records and their keys stay what they are.
    if !groups.isEmpty {
      field(
        21,
        groups.flatMap { integers($0.regions.lowerBound, $0.regions.count, $0.windowTokenCount) }
      )
    }
    if let sideSection { field(22, sideSection.encoded) }
    return record.bytes
  }

  /// The identity that a stored record describes (its salt excepted), or nil when it is malformed.
  package init?(record: [UInt8]) {
    var fields: [UInt16: [UInt8]] = [:]
    let isWellFormed = unsafe record.withUnsafeBytes { bytes in
      var reader = unsafe ByteReader(bytes)
      while reader.remainingByteCount > 0 {
        guard let tag = reader.read(UInt16.self), let count = reader.read(UInt32.self),
          let value = reader.readBytes(Int(count))
        else { return false }
        fields[tag] = value
      }
      return true
    }
    guard isWellFormed else { return nil }
    func integers(_ tag: UInt16, _ count: Int) -> [Int]? {
      guard let bytes = fields[tag], bytes.count == count * 4 else { return nil }
      return littleEndianValues(bytes, width: 4)
    }
    func text(_ tag: UInt16) -> String { String(decoding: fields[tag] ?? [], as: UTF8.self) }
    guard integers(1, 1) == [1], let mode = integers(2, 1)?.first,
      let identityMode = IdentityMode(rawValue: UInt32(mode)),
      let tokensPerBlock = integers(3, 1)?.first, let digestByteCount = integers(4, 1)?.first,
      let flags = integers(5, 1)?.first, let shape = integers(17, 3),
      let ranks = integers(18, 6), let extraByteCountMax = integers(20, 1)?.first
    else { return nil }
    self.identityMode = identityMode
    self.tokensPerBlock = tokensPerBlock
    self.digestByteCount = digestByteCount
    regionsAreVariable = flags & 1 != 0
    regionByteCounts = littleEndianValues(fields[6] ?? [], width: 8)
    modelName = text(7)
    weightsDigest = fields[8] ?? []
    adapterDigest = fields[9] ?? []
    tokenizerDigest = fields[10] ?? []
    kvDtype = text(11)
    kvQuantization = text(12)
    layout = text(13)
    rope = text(14)
    engineFormat = text(15)
    engineBytes = fields[16] ?? []
    self.shape.layerCount = shape[0]
    self.shape.kvHeadCount = shape[1]
    self.shape.headSize = shape[2]
    parallelism.tensorRank = ranks[0]
    parallelism.tensorSize = ranks[1]
    parallelism.pipelineRank = ranks[2]
    parallelism.pipelineSize = ranks[3]
    parallelism.contextRank = ranks[4]
    parallelism.contextSize = ranks[5]
    self.extraByteCountMax = extraByteCountMax
    let groupFields = littleEndianValues(fields[21] ?? [], width: 4)
    for start in stride(from: 0, to: groupFields.count - groupFields.count % 3, by: 3) {
      let first = groupFields[start]
      groups.append(
        KVCacheGroup(
          regions: first..<first + groupFields[start + 1],
          windowTokenCount: groupFields[start + 2]
        )
      )
    }
    sideSection = fields[22].flatMap { SideSection($0) }
    // There is one encoding only: whatever does not encode back to itself is damaged.
    guard firstInvalidArgument() == nil, encoded(saltDigest: fields[19] ?? []) == record else {
      return nil
    }
  }

  /// Whether a stored record names a salt.
  package static func recordHasSalt(_ record: [UInt8]) -> Bool {
    unsafe record.withUnsafeBytes { bytes in
      var reader = unsafe ByteReader(bytes)
      while let tag = reader.read(UInt16.self), let count = reader.read(UInt32.self) {
        if tag == 19 { return count > 0 }
        guard reader.skip(Int(count)) else { return false }
      }
      return false
    }
  }
}

private func littleEndianValues(_ bytes: [UInt8], width: Int) -> [Int] {
  stride(from: 0, to: bytes.count - bytes.count % width, by: width).map { start in
    bytes[start..<start + width].reversed().reduce(0) { $0 &<< 8 | Int($1) }
  }
}
