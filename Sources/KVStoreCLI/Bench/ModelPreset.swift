import ArgumentParser

/// The KV layout of a published model, by name.
///
/// From the `config.json` that each model's publisher keeps on Hugging Face: meta-llama/Llama-3.1-8B, Qwen/Qwen3-32B,
/// deepseek-ai/DeepSeek-V3 and google/gemma-3-270m. Elements are of 2 bytes (bf16), as served there.
enum ModelPreset: String, CaseIterable, ExpressibleByArgument {
  case llama8B = "llama-3.1-8b"
  case qwen32B = "qwen3-32b"
  case deepseekV3 = "deepseek-v3"
  case gemma270M = "gemma-3-270m"

  private static let elementByteCount = 2

  /// What a token leaves in one layer: regions, and elements of each.
  private struct LayerShape {
    var regionCount: Int
    var elementCount: Int
  }

  /// `num_hidden_layers`.
  var layerCount: Int {
    switch self {
    case .llama8B: 32
    case .qwen32B: 64
    case .deepseekV3: 61
    case .gemma270M: 18
    }
  }

  private var layerShape: LayerShape {
    switch self {
    // K and V, each num_key_value_heads × head_dim.
    case .llama8B, .qwen32B: LayerShape(regionCount: 2, elementCount: 8 * 128)
    case .gemma270M: LayerShape(regionCount: 2, elementCount: 256)
    // Multi-head latent attention keeps one vector: kv_lora_rank + qk_rope_head_dim.
    case .deepseekV3: LayerShape(regionCount: 1, elementCount: 512 + 64)
    }
  }

  var regionsPerLayer: Int { layerShape.regionCount }

  /// Bytes of each region of a block, layer by layer.
  func regionByteCounts(tokensPerBlock: Int) -> [Int] {
    let shape = layerShape
    return Array(
      repeating: shape.elementCount * Self.elementByteCount * tokensPerBlock,
      count: layerCount * shape.regionCount
    )
  }
}

/// Numbers of blocks, separated by commas.
struct BlockCounts: ExpressibleByArgument {
  static let range = 1_000...10_000_000

  let counts: [Int]

  init(_ counts: [Int]) { self.counts = counts }

  init?(argument: String) {
    let counts = argument.split(separator: ",").map { Int($0) }
    guard !counts.isEmpty else { return nil }
    self.counts = counts.compactMap { $0 }
    guard self.counts.count == counts.count, self.counts.allSatisfy(Self.range.contains) else {
      return nil
    }
  }

  var defaultValueDescription: String { counts.map(String.init).joined(separator: ",") }
}
