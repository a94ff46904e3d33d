/// The chained identity of a block, in 128 bits.
///
/// A key finds; the stored words prove. Written most significant byte first, as xxHash's canonical form.
public struct BlockKey: Hashable, Sendable {
  /// The upper 64 bits.
  public var high: UInt64
  /// The lower 64 bits.
  public var low: UInt64

  /// A key of two halves.
  @inlinable public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// 32 hexadecimal digits, most significant first.
  public var hexadecimal: String { hexadecimalText(high) + hexadecimalText(low) }

  /// A key from its 32 hexadecimal digits, or nil.
  public init?(hexadecimal text: some StringProtocol) {
    guard text.utf8.count == 32,
      let high = UInt64(text.prefix(16), radix: 16), let low = UInt64(text.suffix(16), radix: 16)
    else { return nil }
    self.init(high: high, low: low)
  }
}

/// `value` in at least `digitCount` hexadecimal digits, padded with zeros.
package func hexadecimalText(_ value: UInt64, digitCount: Int = 16) -> String {
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: max(0, digitCount - digits.count)) + digits
}
