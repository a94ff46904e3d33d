import Crypto
import Synchronization

/// The pins of prefixes that are in use: one that is asked for again takes the place of the one before.
final class PinBook: Sendable {
  private struct Key: Hashable {
    var tenant: String
    var digest: [UInt8]
  }

  /// Older ones run out by themselves.
  private static let capacity = 4096
  private let pins = Mutex<[Key: UInt64]>([:])

  /// Notes a new pin of a prefix; the one that it takes the place of, if any.
  func note(_ pin: UInt64, of prefix: ArraySlice<Int32>, tenant: String) -> UInt64? {
    let digest = prefix.withUnsafeBytes { Array(SHA256.hash(data: $0).prefix(16)) }
    return pins.withLock { pins in
      let key = Key(tenant: tenant, digest: digest)
      if pins.count >= Self.capacity, pins[key] == nil { pins.removeAll() }
      return pins.updateValue(pin, forKey: key)
    }
  }
}
