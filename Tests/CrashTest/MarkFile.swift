import Foundation
import KVCore

/// The promises of a run in a process that is going to be killed: a line for each mark, as the run comes to it.
///
/// How many operations a run needs depends on the moments of its background threads; only the run itself knows which promise
/// held when it died.
enum MarkFile {
  /// Adds a line at the end of the file `path`, by one write: whoever dies within it leaves no newline.
  static func append(_ mark: Mark, to path: String) {
    let file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
    precondition(file >= 0, "cannot open \(path)")
    defer { close(file) }
    let standings = mark.standings.map { standing in
      switch standing {
      case .unknown: "unknown"
      case .absent: "absent"
      case .confirmed(let block, let newestEvent):
        "\(block.run.rawValue).\(block.position).\(newestEvent)"
      }
    }
    let line = Array(
      ([mark.label, "\(mark.operationCount)"] + standings).joined(separator: " ").utf8
    )
    precondition(write(file, line + [UInt8(ascii: "\n")], line.count + 1) == line.count + 1)
  }

  /// The last mark of the run that wrote the file, if it came to one.
  static func last(of path: String) -> Mark? {
    let bytes = FileManager.default.contents(atPath: path) ?? Data()
    let lines = bytes[..<(bytes.lastIndex(of: UInt8(ascii: "\n")) ?? bytes.startIndex)]
    guard let line = lines.split(separator: UInt8(ascii: "\n")).last else { return nil }
    let words = String(decoding: line, as: UTF8.self).split(separator: " ")
    guard words.count >= 2, let operationCount = Int(words[1]) else { return nil }
    let standings = words.dropFirst(2).map { word -> Standing in
      let numbers = word.split(separator: ".").compactMap { UInt64($0) }
      guard numbers.count == 3 else { return word == "absent" ? .absent : .unknown }
      return .confirmed(
        BlockPosition(run: RunID(rawValue: numbers[0]), position: UInt32(numbers[1])),
        newestEvent: numbers[2]
      )
    }
    return Mark(operationCount: operationCount, label: String(words[0]), standings: standings)
  }
}
