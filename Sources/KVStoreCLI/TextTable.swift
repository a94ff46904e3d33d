/// Rows of text in aligned columns.
struct TextTable {
  enum Alignment { case left, right }

  private let headings: [String]
  private let alignments: [Alignment]
  private var rows: [[String]] = []

  init(_ columns: [(heading: String, alignment: Alignment)]) {
    headings = columns.map(\.heading)
    alignments = columns.map(\.alignment)
  }

  mutating func append(_ row: [String]) { rows.append(row) }

  /// The table, a line each; without the headings when `hasHeadings` is false.
  func lines(hasHeadings: Bool = true) -> [String] {
    let all = (hasHeadings ? [headings] : []) + rows
    let widths = headings.indices.map { column in
      all.map { $0.indices.contains(column) ? $0[column].count : 0 }.max() ?? 0
    }
    return all.map { row in
      let cells = zip(row.indices, row).map { column, cell in
        let padding = String(repeating: " ", count: max(0, widths[column] - cell.count))
        return alignments[column] == .left ? cell + padding : padding + cell
      }
      // Padding behind the last column would only be trailing blanks.
      return String(cells.joined(separator: "  ").reversed().drop { $0 == " " }.reversed())
    }
  }
}

/// A number and its noun: `1 thread`, `2 threads`.
func counted(_ count: Int, _ noun: String) -> String {
  "\(count) \(noun)\(count == 1 ? "" : "s")"
}

/// `name  value` lines under one another.
func fieldLines(_ fields: [(name: String, value: String)]) -> [String] {
  var table = TextTable([("", .left), ("", .left)])
  for field in fields { table.append([field.name, field.value]) }
  return table.lines(hasHeadings: false)
}

/// A paragraph in lines of at most 100 characters, broken at blanks.
func wrapped(_ text: String, width: Int = 100) -> [String] {
  var lines: [String] = []
  var line = ""
  for word in text.split(separator: " ") {
    if !line.isEmpty, line.count + 1 + word.count > width {
      lines.append(line)
      line = ""
    }
    line += (line.isEmpty ? "" : " ") + word
  }
  return line.isEmpty ? lines : lines + [line]
}
