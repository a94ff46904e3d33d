/// A GPU as the simulator sees it: what its maker states, per device.
package struct DeviceProfile: Codable, Equatable, Sendable {
  package var name: String
  /// Dense BF16 tensor operations a second.
  package var operationsPerSecond: Double
  package var memoryByteCount: Double
  package var memoryBytesPerSecond: Double
  /// To and from the host, one direction.
  package var linkBytesPerSecond: Double
  package var linkLatencyNanoseconds: Int64
  /// Where the figures come from.
  package var source: String

  package init(
    name: String,
    teraOperations: Double,
    memoryGigabytes: Double,
    memoryGigabytesPerSecond: Double,
    linkGigabytesPerSecond: Double,
    source: String
  ) {
    self.name = name
    operationsPerSecond = teraOperations * 1e12
    memoryByteCount = memoryGigabytes * 1e9
    memoryBytesPerSecond = memoryGigabytesPerSecond * 1e9
    linkBytesPerSecond = linkGigabytesPerSecond * 1e9
    // A copy's fixed cost; measured figures for cudaMemcpyAsync of pinned memory lie around this.
    linkLatencyNanoseconds = 10_000
    self.source = source
  }

  /// PCIe links count one direction: Gen5 x16 64 GB/s, Gen4 x16 32 GB/s (makers add up both).
  package static let presets: [DeviceProfile] = [
    DeviceProfile(
      name: "h100",
      teraOperations: 989,
      memoryGigabytes: 80,
      memoryGigabytesPerSecond: 3350,
      linkGigabytesPerSecond: 64,
      source: "NVIDIA H100 Tensor Core GPU datasheet, H100 SXM (BF16 1,979 TFLOPS is with sparsity)"
    ),
    DeviceProfile(
      name: "h200",
      teraOperations: 989,
      memoryGigabytes: 141,
      memoryGigabytesPerSecond: 4800,
      linkGigabytesPerSecond: 64,
      source: "NVIDIA H200 Tensor Core GPU datasheet, H200 SXM (BF16 1,979 TFLOPS is with sparsity)"
    ),
    DeviceProfile(
      name: "a100",
      teraOperations: 312,
      memoryGigabytes: 80,
      memoryGigabytesPerSecond: 2039,
      linkGigabytesPerSecond: 32,
      source: "NVIDIA A100 Tensor Core GPU datasheet, A100 80GB SXM"
    ),
    DeviceProfile(
      name: "l40s",
      teraOperations: 362,
      memoryGigabytes: 48,
      memoryGigabytesPerSecond: 864,
      linkGigabytesPerSecond: 32,
      source: "NVIDIA L40S datasheet (BF16 733 TFLOPS is with sparsity)"
    ),
    DeviceProfile(
      name: "l4",
      teraOperations: 121,
      memoryGigabytes: 24,
      memoryGigabytesPerSecond: 300,
      linkGigabytesPerSecond: 32,
      source: "NVIDIA L4 Tensor Core GPU datasheet (BF16 242 TFLOPS is with sparsity)"
    ),
    DeviceProfile(
      name: "rtx4090",
      teraOperations: 165,
      memoryGigabytes: 24,
      memoryGigabytesPerSecond: 1008,
      linkGigabytesPerSecond: 32,
      source:
        "NVIDIA Ada GPU architecture whitepaper, appendix A (BF16 with FP32 accumulate, dense)"
    ),
  ]
}

/// A model as the simulator sees it: its size and the shape of its KV.
package struct ModelProfile: Codable, Equatable, Sendable {
  package var name: String
  package var parameterCount: Double
  package var layerCount: Int
  package var attentionHeadCount: Int
  package var kvHeadCount: Int
  package var headSize: Int
  /// Of weights and KV alike.
  package var elementByteCount: Int
  package var source: String

  package init(
    name: String,
    billionParameters: Double,
    layerCount: Int,
    attentionHeadCount: Int,
    kvHeadCount: Int,
    headSize: Int,
    source: String
  ) {
    self.name = name
    parameterCount = billionParameters * 1e9
    self.layerCount = layerCount
    self.attentionHeadCount = attentionHeadCount
    self.kvHeadCount = kvHeadCount
    self.headSize = headSize
    elementByteCount = 2
    self.source = source
  }

  /// K and V of one token over all layers.
  package var kvBytesPerToken: Int {
    2 * layerCount * kvHeadCount * headSize * elementByteCount
  }

  var weightByteCount: Double { parameterCount * Double(elementByteCount) }
  /// The linear term: a multiplication and an addition for each weight and token.
  var operationsPerToken: Double { 2 * parameterCount }
  /// The quadratic term: scores and weighted sum, for each pair of tokens.
  var operationsPerTokenPair: Double {
    4 * Double(layerCount) * Double(attentionHeadCount) * Double(headSize)
  }

  package static let presets: [ModelProfile] = [
    ModelProfile(
      name: "llama-3.1-8b",
      billionParameters: 8.03,
      layerCount: 32,
      attentionHeadCount: 32,
      kvHeadCount: 8,
      headSize: 128,
      source: "meta-llama/Llama-3.1-8B, config.json and model card"
    ),
    ModelProfile(
      name: "llama-3.1-70b",
      billionParameters: 70.6,
      layerCount: 80,
      attentionHeadCount: 64,
      kvHeadCount: 8,
      headSize: 128,
      source: "meta-llama/Llama-3.1-70B, config.json and model card"
    ),
    ModelProfile(
      name: "qwen2.5-32b",
      billionParameters: 32.5,
      layerCount: 64,
      attentionHeadCount: 40,
      kvHeadCount: 8,
      headSize: 128,
      source: "Qwen/Qwen2.5-32B, config.json and model card"
    ),
    ModelProfile(
      name: "qwen3-8b",
      billionParameters: 8.2,
      layerCount: 36,
      attentionHeadCount: 32,
      kvHeadCount: 8,
      headSize: 128,
      source: "Qwen/Qwen3-8B, config.json and model card"
    ),
  ]
}
