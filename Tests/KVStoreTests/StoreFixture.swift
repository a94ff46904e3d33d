import Foundation
import KVCore
import KVStore

/// A store in a folder of its own, and blocks whose bytes follow from their tokens.
final class StoreFixture {
  let folder: URL
  var configuration: StoreConfiguration
  private(set) var store: Store

  init(_ change: (inout StoreConfiguration) -> Void = { _ in }) throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "kvstore-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    configuration = StoreConfiguration(path: folder.appending(path: "store").path)
    configuration.capacityBytes = 256 << 20
    configuration.hostBytes = 16 << 20
    // A busy machine is no reason to fail: what a deadline does is DeadlineTests' business.
    configuration.offloadTimeoutNanoseconds = 300_000_000_000
    change(&configuration)
    store = try Store.open(configuration)
  }

  deinit {
    try? store.close()
    try? FileManager.default.removeItem(at: folder)
  }

  func reopen(_ change: (inout StoreConfiguration) -> Void = { _ in }) throws {
    try store.close()
    change(&configuration)
    store = try Store.open(configuration)
  }

  /// Closes the store, runs `body`, and opens it again.
  func whileClosed(_ body: () throws -> Void) throws {
    try store.close()
    try body()
    store = try Store.open(configuration)
  }

  /// Opens a store again that the test has closed.
  func reopenClosed() throws { store = try Store.open(configuration) }

  /// Fixed regions of `regionByteCounts`, 4 tokens a block.
  static func identity(
    _ regionByteCounts: [Int] = [40_000, 24_000],
    _ change: (inout NamespaceIdentity) -> Void = { _ in }
  ) -> NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = 4
    identity.regionByteCounts = regionByteCounts
    identity.modelName = "test"
    identity.kvDtype = "fp16"
    change(&identity)
    return identity
  }
}

/// Payload bytes of a region, made from the tokens up to its block's end.
func regionBytes(_ prefix: some Sequence<UInt32>, region: Int, count: Int) -> [UInt8] {
  var hash: UInt64 = 0xcbf2_9ce4_8422_2325 &+ UInt64(region)
  for token in prefix { hash = (hash ^ UInt64(token)) &* 0x100_0000_01b3 }
  return [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
    for word in 0..<count / 8 {
      bytes.baseAddress.map { UnsafeMutableRawPointer($0) }?.storeBytes(
        // Like fp16 numbers from 1 to 2, so that an archive has something to save.
        of: (hash &+ UInt64(word) &* 0x9E37_79B9_7F4A_7C15) & 0x03FF_03FF_03FF_03FF
          | 0x3C00_3C00_3C00_3C00,
        toByteOffset: word * 8,
        as: UInt64.self
      )
    }
    for index in count / 8 * 8..<count { bytes[index] = UInt8(truncatingIfNeeded: hash) }
    initialized = count
  }
}

extension Namespace {
  private var regionCount: Int { identity.regionByteCounts.count }

  func match(_ tokens: [UInt32], _ options: MatchOptions = []) throws -> MatchResult {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try self.match(prompt, options: options)
    }
  }

  func peek(_ tokens: [UInt32]) throws -> Int { try match(tokens, .peek).blockCount }

  func touch(_ tokens: [UInt32]) throws -> Int {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.touch(prompt) }
  }

  func forget(_ tokens: [UInt32]) throws -> Int {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.forget(prompt) }
  }

  /// Offloads the prompt's blocks from `first` on, of bytes that follow from the tokens (`regionBytes`).
  @discardableResult
  func offload(
    _ tokens: [UInt32],
    from first: Int = 0,
    regions: Range<Int>? = nil,
    seed: UInt32 = 0,
    life: TimeToLive? = nil,
    priority: UInt8? = nil
  ) throws -> TransferResult {
    let perBlock =
      identity.identityMode == .tokens ? identity.tokensPerBlock : identity.digestByteCount / 4
    let regions = regions ?? 0..<regionCount
    var buffers: [UnsafeMutableRawBufferPointer] = []
    defer { buffers.forEach { $0.deallocate() } }
    for block in first..<(tokens.count / perBlock) {
      for region in regions {
        let prefix = [seed] + tokens[..<((block + 1) * perBlock)]
        let bytes = regionBytes(prefix, region: region, count: identity.regionByteCounts[region])
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
        buffer.copyBytes(from: bytes)
        buffers.append(buffer)
      }
    }
    var spans = buffers.map {
      TransferSpan(data: $0.baseAddress, capacity: $0.count, length: $0.count)
    }
    return try spans.withUnsafeMutableBufferPointer { spans in
      var transfer = Transfer(
        firstBlock: first,
        firstRegion: regions.lowerBound,
        regionCount: regions.count,
        spans: spans
      )
      transfer.timeToLive = life
      transfer.priority = priority
      return try Prompt.with(tokens) { [transfer] (prompt) throws(StoreError) in
        try self.offload(prompt, transfer)
      }
    }
  }

  /// Restores the prompt's blocks and checks every byte that is said to be good.
  @discardableResult
  func restore(
    _ tokens: [UInt32],
    from first: Int = 0,
    regions: Range<Int>? = nil,
    seed: UInt32 = 0
  ) throws -> (result: TransferResult, isRight: Bool) {
    let perBlock =
      identity.identityMode == .tokens ? identity.tokensPerBlock : identity.digestByteCount / 4
    let regions = regions ?? 0..<regionCount
    let blocks = first..<(tokens.count / perBlock)
    var buffers: [UnsafeMutableRawBufferPointer] = []
    defer { buffers.forEach { $0.deallocate() } }
    for _ in blocks {
      for region in regions {
        let buffer = UnsafeMutableRawBufferPointer.allocate(
          byteCount: identity.regionByteCounts[region],
          alignment: 16
        )
        buffer.initializeMemory(as: UInt8.self, repeating: 0xEE)
        buffers.append(buffer)
      }
    }
    var spans = buffers.map { TransferSpan(data: $0.baseAddress, capacity: $0.count, length: 0) }
    let result = try spans.withUnsafeMutableBufferPointer { spans in
      let transfer = Transfer(
        firstBlock: first,
        firstRegion: regions.lowerBound,
        regionCount: regions.count,
        spans: spans
      )
      return try Prompt.with(tokens) { (prompt) throws(StoreError) in
        try self.restore(prompt, transfer)
      }
    }
    var isRight = true
    for index in 0..<result.doneBlockCount {
      let prefix = [seed] + tokens[..<((first + index + 1) * perBlock)]
      for (offset, region) in regions.enumerated() {
        let wanted = regionBytes(prefix, region: region, count: identity.regionByteCounts[region])
        if !buffers[index * regions.count + offset].isEqual(to: wanted) { isRight = false }
      }
    }
    return (result, isRight)
  }
}

func tokens(_ range: Range<Int>) -> [UInt32] { range.map { UInt32($0) } }

extension UnsafeMutableRawBufferPointer {
  /// memcmp: a loop over bytes takes seconds in a debug build.
  func isEqual(to bytes: [UInt8]) -> Bool {
    count == bytes.count
      && bytes.withUnsafeBytes { other in
        guard let mine = baseAddress, let theirs = other.baseAddress else { return count == 0 }
        return memcmp(mine, theirs, count) == 0
      }
  }
}
