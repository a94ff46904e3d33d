/// What two identities differ in.
extension NamespaceIdentity {
  /// The salt's digest in a stored record; empty when there is none.
  package static func saltDigest(ofRecord record: [UInt8]) -> [UInt8] {
    unsafe record.withUnsafeBytes { bytes in
      var reader = unsafe ByteReader(bytes)
      while let tag = reader.read(UInt16.self), let count = reader.read(UInt32.self),
        let value = reader.readBytes(Int(count))
      {
        if tag == 19 { return value }
      }
      return []
    }
  }

  /// Every field by its name in docs/file-format.md, the salt excepted.
  package var fields: [(name: String, value: String)] {
    func hexadecimal(_ bytes: [UInt8]) -> String {
      bytes.map { hexadecimalText(UInt64($0), digitCount: 2) }.joined()
    }
    return [
      ("identity mode", "\(identityMode)"),
      ("tokens per block", "\(tokensPerBlock)"),
      ("digest bytes", "\(digestByteCount)"),
      ("variable regions", "\(regionsAreVariable)"),
      ("region byte counts", regionText),
      ("model name", modelName),
      ("weights digest", hexadecimal(weightsDigest)),
      ("adapter digest", hexadecimal(adapterDigest)),
      ("tokenizer digest", hexadecimal(tokenizerDigest)),
      ("KV dtype", kvDtype),
      ("KV quantisation", kvQuantization),
      ("layout", layout),
      ("RoPE parameters", rope),
      ("engine format", engineFormat),
      ("engine bytes", hexadecimal(engineBytes)),
      ("layers", "\(shape.layerCount)"),
      ("KV heads", "\(shape.kvHeadCount)"),
      ("head size", "\(shape.headSize)"),
      ("tensor-parallel rank", "\(parallelism.tensorRank) of \(parallelism.tensorSize)"),
      ("pipeline-parallel rank", "\(parallelism.pipelineRank) of \(parallelism.pipelineSize)"),
      ("context-parallel rank", "\(parallelism.contextRank) of \(parallelism.contextSize)"),
      ("extra bytes at most", "\(extraByteCountMax)"),
      ("KV cache groups", groupText),
      ("side section", sideSection?.name ?? ""),
    ]
  }

  private var groupText: String {
    groups.map { "regions \($0.regions) window \($0.windowTokenCount)" }.joined(separator: ", ")
  }

  private var regionText: String {
    let sum = regionByteCounts.reduce(0, +)
    return "\(regionByteCounts.count) regions, \(sum) bytes"
  }
}
