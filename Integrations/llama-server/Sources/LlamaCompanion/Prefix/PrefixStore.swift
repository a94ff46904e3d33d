import Glibc
import KVCore
import KVStore
import LlamaSlots

/// The store's side of one llama-server: finds prefixes, makes slot files from them, and takes slot files in.
///
/// Blocks of 64 tokens hold the KV that belongs to tokens for good; an end behind a block boundary holds the rest of the way to what was
/// saved there (`PrefixEnd`). All calls block on the store and are made on threads for that.
final class PrefixStore: Sendable {
  static let tokensPerBlock = 64
  /// Ends are cut into pieces of this size: the store's memory must hold a few blocks of any of its namespaces.
  static let pieceByteCount = 8 << 20

  let layout: SlotLayout
  let store: Store
  let namespace: Namespace
  let pieces: [Namespace]
  let endByteCountMax: Int

  init(
    _ store: Store,
    _ identity: NamespaceIdentity,
    _ limits: NamespaceLimits,
    layout: SlotLayout,
    windowTokenCount: Int
  ) throws {
    self.store = store
    self.layout = layout
    let namespace = try store.openNamespace(identity, limits: limits)
    let endByteCountMax = PrefixEnd.byteCountMax(
      layout,
      tokensPerBlock: Self.tokensPerBlock,
      windowTokenCount: windowTokenCount
    )
    let count = (endByteCountMax + Self.pieceByteCount - 1) / Self.pieceByteCount
    self.namespace = namespace
    self.endByteCountMax = endByteCountMax
    pieces = try (0..<count).map { index in
      try namespace.openSection(
        "end \(index)",
        byteCountMax: min(Self.pieceByteCount, endByteCountMax),
        quotaBytes: limits.quotaBytes
      )
    }
  }

  /// Bytes of each plane's part of a block; a model without attention has blocks that only say which tokens they are.
  static func regionByteCounts(_ layout: SlotLayout) -> [Int] {
    guard let cache = layout.blockCache else { return [tokensPerBlock] }
    return cache.planes.map { $0.rowByteCount * tokensPerBlock }
  }

  // ---------------------------------------------------------------- keeping

  /// How long what is stored for a request lives, and how dear it is.
  struct Lives: Sendable {
    var timeToLive: TimeToLive?
    var priority: UInt8?
  }

  /// Pins the stored prefix of these tokens; its blocks, and what `unpin` takes.
  func pin(_ tokens: [Int32], nanoseconds: UInt64) throws -> (id: UInt64, blockCount: Int)? {
    try Self.withWords(tokens) { words in
      try namespace.pin(
        unsafe Prompt(words: words.baseAddress, wordCount: words.count),
        nanoseconds: nanoseconds
      )
    }
  }

  func explain(_ tokens: [Int32]) throws -> Explanation {
    try Self.withWords(tokens) { words in
      try namespace.explain(unsafe Prompt(words: words.baseAddress, wordCount: words.count))
    }
  }

  // ---------------------------------------------------------------- words

  static func withWords<Result>(
    _ tokens: [Int32],
    _ body: (UnsafeBufferPointer<UInt32>) throws -> Result
  ) rethrows -> Result {
    try tokens.withUnsafeBytes { try body($0.bindMemory(to: UInt32.self)) }
  }

  static func words(ofDigest digest: [UInt8]) -> [UInt32] {
    digest.withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self) }
    }
  }
}
