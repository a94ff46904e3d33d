/// Why a trace cannot be read.
package enum TraceError: Error, Equatable, CustomStringConvertible {
  case cannotOpen(file: String, errno: Int32)
  case cannotRead(file: String, errno: Int32)
  case badCompression(file: String, text: String)
  /// The first bytes are those of a gzip file.
  case gzip(file: String)
  /// No line holds a request.
  case empty(file: String)
  case badLine(file: String, line: Int, fault: TraceLineFault)

  package var description: String {
    switch self {
    case .cannotOpen(let file, let errno): "\(file): cannot open: error \(errno)"
    case .cannotRead(let file, let errno): "\(file): cannot read: error \(errno)"
    case .badCompression(let file, let text): "\(file): not a good zstd file: \(text)"
    case .gzip(let file):
      "\(file): compressed with gzip, which is not read here: gunzip -c \(file) | kvstore replay -"
    case .empty(let file): "\(file): there is no request in it"
    case .badLine(let file, let line, let fault): "\(file):\(line): \(fault)"
    }
  }
}

/// What is wrong with a line.
package enum TraceLineFault: Error, Equatable, CustomStringConvertible {
  case notJSON(column: Int)
  case missing(String)
  case notANumber(String)
  case outOfRange(String)
  case tooLong
  /// The line begins with a byte-order mark.
  case byteOrderMark
  /// So many ids are neither the full blocks of so many tokens nor all of them.
  case idCount(Int, tokenCount: Int, tokensPerBlock: Int)

  package var description: String {
    switch self {
    case .notJSON(let column): "column \(column): not a JSON object"
    case .missing(let field): "there is no \(field)"
    case .notANumber(let field): "\(field) is not an integer"
    case .outOfRange(let field): "\(field) is out of range"
    case .tooLong: "longer than 256 MiB"
    case .byteOrderMark: "begins with a byte-order mark: save the file as UTF-8 without one"
    case .idCount(let count, let tokenCount, let tokensPerBlock):
      "\(count) hash_ids for an input_length of \(tokenCount) in blocks of \(tokensPerBlock) tokens: "
        + "\(Self.blockCounts(tokenCount, tokensPerBlock)) expected; "
        + "is block_size (or --block-size) right?"
    }
  }

  private static func blockCounts(_ tokenCount: Int, _ tokensPerBlock: Int) -> String {
    let full = tokenCount / tokensPerBlock
    return full * tokensPerBlock == tokenCount ? "\(full)" : "\(full) or \(full + 1)"
  }
}
