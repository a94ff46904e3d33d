import FoundationEssentials
import KVRequests

/// Findings that are known and put up with: kinds and places, so that it holds for the next log as well.
struct LintBaseline: Codable {
  struct Entry: Codable, Hashable {
    var kind: String
    var path: String
    var value: String?
  }

  var known: Set<Entry>

  init(_ report: LogReport) { known = Set(report.findings.map(Self.entry)) }

  static func read(_ path: String) throws -> LintBaseline {
    guard let data = FileManager.default.contents(atPath: path) else {
      throw CommandFailure("cannot read \(path): write it with --write-baseline first")
    }
    do { return try JSONDecoder().decode(LintBaseline.self, from: data) } catch {
      throw CommandFailure("\(path) is no baseline: write it anew with --write-baseline")
    }
  }

  func write(_ path: String) throws {
    var text = "{\"known\":[\n"
    let sorted = known.sorted {
      ($0.kind, $0.path, $0.value ?? "") < ($1.kind, $1.path, $1.value ?? "")
    }
    text += try sorted.map { "  " + (try jsonText($0, isPretty: false)) }.joined(separator: ",\n")
    text += "\n]}\n"
    try writeFile(path, text)
  }

  func holds(_ finding: LogFinding) -> Bool { known.contains(Self.entry(finding)) }

  private static func entry(_ finding: LogFinding) -> Entry {
    Entry(
      kind: finding.change.kind.rawValue,
      path: LintOutcome.pattern(finding.change.path),
      value: finding.change.shape?.rawValue
    )
  }
}
