/// Why a trace cannot be read.
package enum TraceError: Error, Equatable, CustomStringConvertible {
  case cannotOpen(file: String, errno: Int32)
  case cannotRead(file: String, errno: Int32)
  case badCompression(file: String, text: String)
  case badLine(file: String, line: Int, fault: TraceLineFault)

  package var description: String {
    switch self {
    case .cannotOpen(let file, let errno): "\(file): cannot open: error \(errno)"
    case .cannotRead(let file, let errno): "\(file): cannot read: error \(errno)"
    case .badCompression(let file, let text): "\(file): not a good zstd file: \(text)"
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

  package var description: String {
    switch self {
    case .notJSON(let column): "column \(column): not a JSON object"
    case .missing(let field): "there is no \(field)"
    case .notANumber(let field): "\(field) is not an integer"
    case .outOfRange(let field): "\(field) is out of range"
    case .tooLong: "longer than 256 MiB"
    }
  }
}
