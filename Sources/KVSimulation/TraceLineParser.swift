internal import KVCore

// Unsafe: lends words of token ids to the key chain by pointer.

/// Makes a request of one line.
struct TraceLineParser {
  let tokensPerBlock: Int

  private enum Field { case timestamp, input, output, blockSize, ids, tokens, session, turn, other }

  /// False if the line is blank.
  func parse(_ line: UnsafeRawBufferPointer, into request: inout TraceRequest)
    throws(TraceLineFault) -> Bool
  {
    guard var scanner = unsafe JSONScanner(line), scanner.peek() != 0 else { return false }
    if unsafe line.starts(with: Self.byteOrderMark) { throw .byteOrderMark }
    request.blockIDs.removeAll(keepingCapacity: true)
    request.tokensPerBlock = tokensPerBlock
    request.outputTokenCount = 0
    request.session = nil
    request.turn = nil
    var timestamp: Int64?
    var inputTokenCount: Int64?
    var idField: Field?
    do throws(JSONScanner.Fault) { try scanner.expect(UInt8(ascii: "{")) } catch {
      throw .notJSON(column: scanner.offset + 1)
    }
    var isFirst = true
    while !scanner.take(UInt8(ascii: "}")) {
      var field = Field.other
      do throws(JSONScanner.Fault) {
        if !isFirst { try scanner.expect(UInt8(ascii: ",")) }
        isFirst = false
        field = unsafe Self.field(try scanner.string())
        try scanner.expect(UInt8(ascii: ":"))
        switch field {
        case .timestamp: timestamp = try scanner.integer()
        case .input: inputTokenCount = try scanner.integer()
        case .output: request.outputTokenCount = Int(try scanner.integer())
        case .blockSize: request.tokensPerBlock = Int(try scanner.integer())
        case .session: request.session = try Self.integerOrNil(&scanner)
        case .turn: request.turn = try Self.integerOrNil(&scanner).map { Int($0) }
        case .ids, .tokens:
          if idField == .ids && field == .tokens {
            try scanner.skipValue()
          } else {
            request.blockIDs.removeAll(keepingCapacity: true)
            try scanner.integers(into: &request.blockIDs)
            idField = field
          }
        case .other: try scanner.skipValue()
        }
      } catch {
        throw Self.lineFault(error, field, column: scanner.offset + 1)
      }
    }
    guard scanner.peek() == 0 else { throw .notJSON(column: scanner.offset + 1) }
    guard let timestamp else { throw .missing("timestamp") }
    guard let idField else { throw .missing("hash_ids") }
    request.timestampMilliseconds = timestamp
    if idField == .tokens {
      request.inputTokenCount = request.blockIDs.count
    } else {
      guard let inputTokenCount else { throw .missing("input_length") }
      guard (0...1 << 40).contains(inputTokenCount) else { throw .outOfRange("input_length") }
      request.inputTokenCount = Int(inputTokenCount)
    }
    try check(request)
    if idField == .tokens {
      try replaceTokensByKeys(&request)
    } else {
      try checkIDCount(request)
    }
    return true
  }

  private static let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

  private func check(_ request: TraceRequest) throws(TraceLineFault) {
    // Far beyond any trace; the bounds keep sums of times and tokens within 64 bits.
    guard (0...1 << 50).contains(request.timestampMilliseconds) else {
      throw .outOfRange("timestamp")
    }
    guard (0...1 << 40).contains(request.outputTokenCount) else {
      throw .outOfRange("output_length")
    }
    guard (1...1 << 24).contains(request.tokensPerBlock) else { throw .outOfRange("block_size") }
  }

  /// Ids are those of the full blocks, or of all blocks with a last one that is not full.
  ///
  /// Other counts mean another block size than the line (or the option) says, and hit rates that mean nothing.
  private func checkIDCount(_ request: TraceRequest) throws(TraceLineFault) {
    let count = request.blockIDs.count
    let full = request.inputTokenCount / request.tokensPerBlock
    let all = full + (request.inputTokenCount % request.tokensPerBlock > 0 ? 1 : 0)
    guard count == full || count == all else {
      throw .idCount(
        count,
        tokenCount: request.inputTokenCount,
        tokensPerBlock: request.tokensPerBlock
      )
    }
  }

  /// Cuts token ids into full blocks, and names each by its chained key.
  private func replaceTokensByKeys(_ request: inout TraceRequest) throws(TraceLineFault) {
    let chain = KeyChain(
      rootKey: BlockKey(high: 0, low: 0),
      identityMode: .tokens,
      wordsPerBlock: request.tokensPerBlock
    )
    var words: [UInt32] = []
    words.reserveCapacity(request.tokensPerBlock)
    var key = chain.rootKey
    var keys: [UInt64] = []
    for token in request.blockIDs {
      guard token <= UInt64(UInt32.max) else { throw .outOfRange("token_ids") }
      words.append(UInt32(token))
      guard words.count == request.tokensPerBlock else { continue }
      key = unsafe words.span.withUnsafeBytes { bytes in
        unsafe chain.key(
          after: key,
          words: bytes.baseAddress.unsafelyUnwrapped,
          extra: UnsafeRawBufferPointer(start: nil, count: 0)
        )
      }
      // 64 of the 128 bits: a simulation may mix up two blocks once in a billion traces.
      keys.append(key.low)
      words.removeAll(keepingCapacity: true)
    }
    request.blockIDs = keys
  }

  private static func integerOrNil(
    _ scanner: inout JSONScanner
  ) throws(JSONScanner.Fault) -> Int64? {
    let next = scanner.peek()
    if next == UInt8(ascii: "-") || next &- 0x30 < 10 { return try scanner.integer() }
    try scanner.skipValue()
    return nil
  }

  private static func lineFault(
    _ fault: JSONScanner.Fault,
    _ field: Field,
    column: Int
  ) -> TraceLineFault {
    switch fault {
    case .syntax: .notJSON(column: column)
    case .notInteger: .notANumber(name(field))
    case .outOfRange: .outOfRange(name(field))
    }
  }

  private static let names: [(name: StaticString, field: Field)] = [
    ("hash_ids", .ids), ("timestamp", .timestamp), ("input_length", .input),
    ("output_length", .output), ("block_size", .blockSize), ("token_ids", .tokens),
    ("session", .session), ("turn", .turn),
  ]

  private static func field(_ name: UnsafeRawBufferPointer) -> Field {
    for entry in names where entry.name.utf8CodeUnitCount == name.count {
      let isEqual = entry.name.withUTF8Buffer { unsafe $0.elementsEqual(name) }
      if isEqual { return entry.field }
    }
    return .other
  }

  private static func name(_ field: Field) -> String {
    names.first { $0.field == field }.map { "\($0.name)" } ?? "a field"
  }
}
