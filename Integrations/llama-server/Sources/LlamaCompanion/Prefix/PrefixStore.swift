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
  /// The windows of whole blocks, which ends share, and what an end has of the block in which its window begins.
  let windows: [Namespace]
  let fronts: [Namespace]
  let windowTokenCount: Int
  /// How long a look-up waits for what the remote tier has; 0 = it is not asked.
  let remoteWaitNanoseconds: UInt64

  init(
    _ store: Store,
    _ identity: NamespaceIdentity,
    _ limits: NamespaceLimits,
    layout: SlotLayout,
    windowTokenCount: Int,
    remoteWaitNanoseconds: UInt64 = 0
  ) throws {
    self.store = store
    self.remoteWaitNanoseconds = remoteWaitNanoseconds
    self.layout = layout
    let namespace = try store.openNamespace(identity, limits: limits)
    let hasWindow = layout.caches.count > 1
    let endByteCountMax =
      hasWindow
      ? PrefixEnd.partedByteCountMax(layout, tokensPerBlock: Self.tokensPerBlock)
      : PrefixEnd.byteCountMax(layout, tokensPerBlock: Self.tokensPerBlock, windowTokenCount: 0)
    func sections(_ name: String, _ byteCountMax: Int) throws -> [Namespace] {
      let count = (byteCountMax + Self.pieceByteCount - 1) / Self.pieceByteCount
      return try (0..<count).map { index in
        try namespace.openSection(
          "\(name) \(index)",
          byteCountMax: min(Self.pieceByteCount, byteCountMax),
          quotaBytes: limits.quotaBytes
        )
      }
    }
    self.namespace = namespace
    self.windowTokenCount = windowTokenCount
    // All of one size: they share the store's slot files, which are made for many blocks at a time.
    let windowByteCount = hasWindow ? layout.caches[1].rowByteCount * Self.tokensPerBlock : 0
    let byteCount = max(endByteCountMax, windowByteCount)
    pieces = try sections("end", byteCount)
    windows = hasWindow ? try sections("window", byteCount) : []
    fronts = hasWindow ? try sections("front", byteCount) : []
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

  /// Pins the stored prefix of these tokens, and the end that stands behind it; none where nothing is stored.
  func pin(_ tokens: [Int32], seconds: UInt64) throws -> [UInt64] {
    let nanoseconds = seconds * 1_000_000_000
    return try Self.withWords(tokens) { words in
      let prompt = unsafe Prompt(words: words.baseAddress, wordCount: words.count)
      guard let blocks = try namespace.pin(prompt, nanoseconds: nanoseconds) else { return [] }
      var pins = [blocks.id]
      func pin(_ pieces: [Namespace], blockCount: Int) throws {
        for piece in pieces {
          let digest = try piece.sectionDigest(prompt, blockCount: blockCount)
          let found = try Prompt.with(Self.words(ofDigest: digest)) { prompt in
            try piece.pin(prompt, nanoseconds: nanoseconds)
          }
          guard let found else { break }
          pins.append(found.id)
        }
      }
      try pin(pieces, blockCount: blocks.blockCount)
      try pin(fronts, blockCount: blocks.blockCount)
      if !windows.isEmpty {
        let before = windowTokenCount / Self.tokensPerBlock + 2
        for block in max(0, blocks.blockCount - before)..<blocks.blockCount {
          try pin(windows, blockCount: block + 1)
        }
      }
      return pins
    }
  }

  /// Makes durable what was taken.
  func flush() throws { _ = try store.flush(timeoutNanoseconds: 10_000_000_000) }

  func unpin(_ pin: UInt64) { _ = try? store.unpin(pin) }

  /// Puts the idle end of the stored prefix off; its blocks.
  func touch(_ tokens: [Int32], keepSeconds: UInt64) throws -> Int {
    try Self.withWords(tokens) { words in
      try namespace.touch(
        unsafe Prompt(words: words.baseAddress, wordCount: words.count),
        keepNanoseconds: keepSeconds * 1_000_000_000
      )
    }
  }

  /// Removes what the stored prefix of these tokens shares with no other prompt; its blocks.
  func forgetTail(_ tokens: [Int32]) throws -> Int {
    try Self.withWords(tokens) { words in
      try namespace.purge(
        unsafe Prompt(words: words.baseAddress, wordCount: words.count),
        onlyTail: true
      )
    }
  }

  /// Starts bringing the stored prefix into RAM; its tokens.
  func prefetch(_ tokens: [Int32]) throws -> Int {
    try Self.withWords(tokens) { words in
      try namespace.prefetch(unsafe Prompt(words: words.baseAddress, wordCount: words.count)).stored
        * Self.tokensPerBlock
    }
  }

  func beginSession(_ name: String) throws -> Session { try namespace.beginSession(name) }

  /// As the next step of a session; nothing is held.
  func match(_ session: Session, _ tokens: [Int32]) throws {
    let match = try Self.withWords(tokens) { words in
      try session.match(
        unsafe Prompt(words: words.baseAddress, wordCount: words.count),
        options: .leaveOneToken
      )
    }
    if match.lease != 0 { release([match.lease]) }
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
