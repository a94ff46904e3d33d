import Glibc
import KVCore
import KVStore

/// Whole blocks in and out, as plain bytes.
extension Namespace {
  func offload(_ tokens: [UInt32], payloads: [[UInt8]]) throws(StoreError) -> TransferResult {
    try transfer(tokens, payloads, first: 0) { (prompt, transfer) throws(StoreError) in
      try self.offload(prompt, transfer)
    }.result
  }

  /// Restores from block `first` on; each restored block's payload.
  func restore(
    _ tokens: [UInt32],
    first: Int,
    payloadByteCounts: [Int],
    timeoutNanoseconds: UInt64 = 0
  ) throws(StoreError) -> (result: TransferResult, payloads: [[UInt8]]) {
    let empty = payloadByteCounts.map { [UInt8](repeating: 0xEE, count: $0) }
    return try transfer(tokens, empty, first: first, timeoutNanoseconds) {
      (prompt, transfer) throws(StoreError) in
      try self.restore(prompt, transfer)
    }
  }

  func matchedBlockCount(_ tokens: [UInt32]) throws(StoreError) -> Int {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try self.match(prompt, options: .peek).blockCount
    }
  }

  func takeLease(_ tokens: [UInt32]) throws(StoreError) -> UInt64 {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.match(prompt).lease }
  }

  func touch(_ tokens: [UInt32]) throws(StoreError) -> Int {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.touch(prompt) }
  }

  func forget(_ tokens: [UInt32]) throws(StoreError) -> Int {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.forget(prompt) }
  }

  func keys(_ tokens: [UInt32]) throws(StoreError) -> [BlockKey] {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.blockKeys(prompt) }
  }

  private func transfer(
    _ tokens: [UInt32],
    _ payloads: [[UInt8]],
    first: Int,
    _ timeoutNanoseconds: UInt64 = 0,
    _ body: (Prompt, Transfer) throws(StoreError) -> TransferResult
  ) throws(StoreError) -> (result: TransferResult, payloads: [[UInt8]]) {
    let regions = identity.regionByteCounts
    let buffers = payloads.map { payload in
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: payload.count, alignment: 64)
      buffer.copyBytes(from: payload)
      return buffer
    }
    defer { buffers.forEach { $0.deallocate() } }
    let spans = UnsafeMutableBufferPointer<TransferSpan>.allocate(
      capacity: payloads.count * regions.count
    )
    defer { spans.deallocate() }
    var next = 0
    for buffer in buffers {
      var offset = 0
      for byteCount in regions {
        spans.initializeElement(
          at: next,
          to: TransferSpan(
            data: buffer.baseAddress?.advanced(by: offset),
            capacity: byteCount,
            length: byteCount
          )
        )
        offset += byteCount
        next += 1
      }
    }
    let transfer = Transfer(
      firstBlock: first,
      timeoutNanoseconds: timeoutNanoseconds,
      spans: spans
    )
    let result = try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try body(prompt, transfer)
    }
    return (result, buffers.prefix(result.doneBlockCount).map { Array($0) })
  }
}

/// memcmp: comparing arrays byte by byte takes seconds in a debug build.
func bytesEqual(_ one: [UInt8], _ other: [UInt8]) -> Bool {
  one.count == other.count
    && one.withUnsafeBytes { a in
      other.withUnsafeBytes { b in
        guard let a = a.baseAddress, let b = b.baseAddress else { return true }
        return memcmp(a, b, one.count) == 0
      }
    }
}
