internal import KVCore

/// Reads a trace request by request; a trace larger than RAM is fine.
///
/// A line is a JSON object in one of two forms: with `hash_ids`, one chained id for each block (Mooncake, and the same
/// with `session` and `turn`), or with `token_ids`, which are cut into blocks and keyed here. Other fields are passed over.
package final class TraceReader {
  private let file: String
  private let source: TraceByteSource
  private let parser: TraceLineParser
  private let skipsBadLines: Bool
  private var lineNumber = 0
  private var requestCount = 0
  package private(set) var badLineCount = 0
  /// The first bad line that was skipped.
  package private(set) var firstBadLine: TraceError?

  /// Opens a trace, plain or zstd-compressed; "-" is the standard input.
  ///
  /// `tokensPerBlock` counts where the line has no `block_size` of its own; `skipsBadLines` counts bad lines
  /// instead of throwing.
  package init(
    file: String,
    tokensPerBlock: Int = 512,
    skipsBadLines: Bool = false
  ) throws(TraceError) {
    self.file = file
    self.skipsBadLines = skipsBadLines
    parser = TraceLineParser(tokensPerBlock: tokensPerBlock)
    source = try TraceByteSource(file: file)
  }

  /// Reads the next request; false at the end of the trace.
  ///
  /// A trace without any request is an error.
  package func next(into request: inout TraceRequest) throws(TraceError) -> Bool {
    while true {
      lineNumber += 1
      let fault: TraceLineFault?
      do throws(TraceByteSource.LineError) {
        var isBlank = false
        let result = unsafe try source.withLine { line -> TraceLineFault? in
          do throws(TraceLineFault) {
            isBlank = unsafe try !parser.parse(line, into: &request)
            return nil
          } catch { return error }
        }
        guard let result else { break }
        if isBlank { continue }
        fault = result
      } catch {
        switch error {
        case .trace(let error): throw error
        case .tooLong: throw .badLine(file: file, line: lineNumber, fault: .tooLong)
        }
      }
      guard let fault else {
        requestCount += 1
        return true
      }
      let error = TraceError.badLine(file: file, line: lineNumber, fault: fault)
      guard skipsBadLines else { throw error }
      badLineCount += 1
      if firstBadLine == nil { firstBadLine = error }
    }
    guard requestCount + badLineCount > 0 else { throw .empty(file: file) }
    return false
  }
}
