package import KVCodec
internal import KVCore

/// Encoders and decoders of archive slots that nobody uses at the moment.
///
/// Each is for one thread at a time, and there are as many as were once used at once.
package final class SlotCoders: Sendable {
  private let encoders = Monitor<[Encoder]>([])
  private let decoders = Monitor<[Decoder]>([])

  package init() {}

  private final class Encoder: @unchecked Sendable {
    // Unchecked: only who has taken it out of the list uses it.
    let encoder: SlotEncoder
    init?() {
      guard let encoder = SlotEncoder() else { return nil }
      self.encoder = encoder
    }
  }

  private final class Decoder: @unchecked Sendable {
    // Unchecked: as above.
    let decoder: SlotDecoder
    init?() {
      guard let decoder = SlotDecoder() else { return nil }
      self.decoder = decoder
    }
  }

  /// Nil when memory is short.
  func withEncoder<Result>(_ body: (borrowing SlotEncoder) -> Result?) -> Result? {
    guard let coder = encoders.withLock({ $0.popLast() }) ?? Encoder() else { return nil }
    defer { encoders.withLock { $0.append(coder) } }
    return body(coder.encoder)
  }

  /// Nil when memory is short.
  package func withDecoder<Result>(_ body: (borrowing SlotDecoder) -> Result?) -> Result? {
    guard let coder = decoders.withLock({ $0.popLast() }) ?? Decoder() else { return nil }
    defer { decoders.withLock { $0.append(coder) } }
    return body(coder.decoder)
  }
}
