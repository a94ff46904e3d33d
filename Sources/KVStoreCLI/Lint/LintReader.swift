import Glibc
import KVRequests

/// Reads logs into an analysis, and counts what it could not read.
struct LintReader {
  /// Lines of a log that hold no request.
  struct Skipped {
    var count = 0
    /// The first of each kind, in words.
    var examples: [(text: String, count: Int)] = []

    mutating func add(_ reason: String, _ place: String) {
      count += 1
      if let index = examples.firstIndex(where: { $0.text.hasSuffix(reason) }) {
        examples[index].count += 1
      } else if examples.count < 8 {
        examples.append(("\(place): \(reason)", 1))
      }
    }
  }

  var analysis: RequestAnalysis
  private(set) var skipped = Skipped()
  /// Logs that break off.
  private(set) var faults: [String] = []
  private let progress = ProgressLine()

  init(_ analysis: RequestAnalysis) { self.analysis = analysis }

  mutating func read(_ path: String, source: Int) throws {
    let input = try LogInput(path)
    var number = 0
    while let (bytes, isTooLong) = input.line() {
      number += 1
      if number % 256 == 0 { show(input) }
      if isTooLong {
        skipped.add("longer than \(LogInput.lineByteCountMax >> 20) MiB", "\(input.name):\(number)")
        continue
      }
      if bytes.allSatisfy({ $0 <= 0x20 }) { continue }
      do {
        try take(bytes, source, number, input.name)
      } catch let fault as JSONFault {
        // A value that goes on over the line's end: a document, no log of lines.
        if number == 1, fault.reason == .endsEarly, try readDocument(bytes, input, source) { break }
        skipped.add(withoutOffset(fault), "\(input.name):\(number)")
      }
    }
    if let fault = input.fault {
      faults.append("\(input.name) breaks off behind line \(number): \(fault)")
    }
    progress.clear()
  }

  /// Reads what a recorder writes, until the command is stopped; `report` is called after each line.
  ///
  /// A log that is cut, or put aside for a new one, is read on from the new one's beginning.
  mutating func follow(_ path: String, _ report: (inout LintReader) throws -> Void) throws {
    var input = try Self.growingLog(path)
    var number = 0
    while true {
      let isReplaced = input.isReplaced(at: path)
      while let (bytes, isTooLong) = input.line() {
        number += 1
        if isTooLong || bytes.allSatisfy({ $0 <= 0x20 }) { continue }
        do { try take(bytes, 0, number, input.name) } catch let fault as JSONFault {
          skipped.add(withoutOffset(fault), "\(input.name):\(number)")
        }
        try report(&self)
      }
      if isReplaced {
        input = try Self.growingLog(path)
        number = 0
      } else {
        usleep(200_000)
        input.continueAtEnd()
      }
    }
  }

  private static func growingLog(_ path: String) throws -> LogInput {
    let input = try LogInput(path)
    guard !input.isCompressed, input.fileByteCount != nil else {
      throw CommandFailure("--watch follows a plain file that is being written, not \(path)")
    }
    input.waitsForLineEnd = true
    return input
  }

  private mutating func take(_ bytes: [UInt8], _ source: Int, _ line: Int, _ name: String) throws {
    guard let logged = try LoggedRequest.inRecord(bytes) else {
      return skipped.add("no request in it", "\(name):\(line)")
    }
    analysis.add(logged, source: source, line: line)
  }

  private mutating func readDocument(
    _ first: [UInt8],
    _ input: LogInput,
    _ source: Int
  ) throws -> Bool {
    guard let rest = input.rest() else { return false }
    let text = first + [0x0A] + rest
    var found: [(Int, LoggedRequest)] = []
    do {
      let count = try LoggedRequest.inDocument(text) { found.append(($0, $1)) }
      for (entry, request) in found { analysis.add(request, source: source, line: entry) }
      for _ in found.count..<max(count, found.count) {
        skipped.add("no request in it", "\(input.name): an entry")
      }
      return true
    } catch {
      // Neither: a log whose lines are all broken.
      try readLines(rest, input, source)
      return false
    }
  }

  private mutating func readLines(_ text: [UInt8], _ input: LogInput, _ source: Int) throws {
    for (index, line) in text.split(separator: 0x0A, omittingEmptySubsequences: false).enumerated()
    where !line.allSatisfy({ $0 <= 0x20 }) {
      do { try take(Array(line), source, index + 2, input.name) } catch let fault as JSONFault {
        skipped.add(withoutOffset(fault), "\(input.name):\(index + 2)")
      }
    }
  }

  /// Faults of one kind are counted together, wherever in their lines they are.
  private func withoutOffset(_ fault: JSONFault) -> String {
    switch fault.reason {
    case .syntax: "not JSON"
    case .endsEarly: "cut off in the middle of a value"
    case .notUTF8: "not UTF-8"
    case .tooDeep, .tooLong: fault.description
    }
  }

  private func show(_ input: LogInput) {
    let count = counted(analysis.requestCount, "request")
    guard let size = input.fileByteCount, size > 0 else {
      return progress.show("reading \(input.name): \(count)")
    }
    let share = min(100, input.readByteCount * 100 / size)
    progress.show("reading \(input.name): \(share) %, \(count)")
  }
}
