/// What the elements of a payload are: what the codec's transform goes by.
///
/// Raw values are part of the file format.
package enum ElementType: UInt8, Sendable, CaseIterable {
  /// Nothing is known: zstd on the bytes as they are.
  case opaque = 0
  case fp16 = 1
  case bf16 = 2
  case fp32 = 3
  case fp8E4M3 = 4
  case fp8E5M2 = 5
  case int8 = 6
  /// llama.cpp's Q8_0: 32 signed bytes behind an fp16 scale. Taken byte by byte: a row's scales are channels of their own.
  case q8_0 = 7

  /// Bytes of an element; one where elements are taken byte by byte.
  package var byteCount: Int {
    switch self {
    case .opaque, .fp8E4M3, .fp8E5M2, .int8, .q8_0: 1
    case .fp16, .bf16: 2
    case .fp32: 4
    }
  }

  /// Bytes of a row of `elementCount` elements.
  package func rowByteCount(elementCount: Int) -> Int {
    switch self {
    case .q8_0: elementCount / 32 * 34
    default: elementCount * byteCount
    }
  }

  /// By a dtype's common names, for example `fp16`, `float16`, `f16`; nil for an unknown one.
  package init?(name: String) {
    switch name.lowercased() {
    case "opaque": self = .opaque
    case "fp16", "float16", "f16", "half": self = .fp16
    case "bf16", "bfloat16": self = .bf16
    case "fp32", "float32", "f32", "float": self = .fp32
    case "fp8", "fp8-e4m3", "fp8_e4m3", "fp8_e4m3fn", "float8_e4m3fn", "e4m3": self = .fp8E4M3
    case "fp8-e5m2", "fp8_e5m2", "float8_e5m2", "e5m2": self = .fp8E5M2
    case "int8", "i8": self = .int8
    case "q8_0": self = .q8_0
    default: return nil
    }
  }

  /// The name in reports and options.
  package var name: String {
    switch self {
    case .opaque: "opaque"
    case .fp16: "fp16"
    case .bf16: "bf16"
    case .fp32: "fp32"
    case .fp8E4M3: "fp8-e4m3"
    case .fp8E5M2: "fp8-e5m2"
    case .int8: "int8"
    case .q8_0: "q8_0"
    }
  }

  /// Low bits of a symbol that a channel's shift leaves alone: shifts are multiples of this power of two.
  var shiftUnitBits: Int {
    switch self {
    case .opaque, .bf16, .fp32: 0
    // Above these lies the sign, and above that the exponent: an odd shift turns the sign around.
    case .fp16, .fp8E5M2: 2
    case .fp8E4M3: 3
    case .int8: 3
    case .q8_0: 4
    }
  }
}

/// What an encoder goes by: the elements, and how many bytes apart those of one channel lie.
package struct PayloadFormat: Sendable, Equatable {
  package var elementType: ElementType
  /// Bytes after which the channels repeat (a token's row in one layer's K or V); 0 = no channels.
  package var rowByteCount: Int
  /// Bytes after which the channels are others, where a region holds several tensors; 0 = the region is one tensor.
  package var tensorByteCount: Int

  package init(elementType: ElementType, rowByteCount: Int, tensorByteCount: Int = 0) {
    self.elementType = elementType
    self.rowByteCount = rowByteCount
    self.tensorByteCount = tensorByteCount
  }

  static let opaque = PayloadFormat(elementType: .opaque, rowByteCount: 0)

  /// Elements of a row; 0 when there are no channels.
  var channelCount: Int {
    guard rowByteCount > 0, rowByteCount % elementType.byteCount == 0 else { return 0 }
    return rowByteCount / elementType.byteCount
  }
}
