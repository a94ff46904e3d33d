import Foundation
import KVSimulation
import KVTestSupport
import Testing

/// Where the published traces are; nil without them.
func traceFolder() -> String? {
  let given = ProcessInfo.processInfo.environment["KVSTORE_TRACES"]
  // Tests/KVSimulationTests/TraceFixture.swift is three levels below the package.
  let package = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  let folder = given ?? package.appending(path: "../shared/traces").standardizedFileURL.path
  return FileManager.default.fileExists(atPath: folder + "/reference.json") ? folder : nil
}

/// One run of reference.json.
struct ReferenceRun: Sendable, CustomTestStringConvertible {
  var trace: String
  var file: String
  var tokensPerBlock: Int
  var policy: String
  var order: String
  var capacityBlocks: Int?
  var ttlSeconds: Double?
  var isFullBlocksOnly: Bool
  /// All fields, as JSON values in text.
  var fields: [String: String]

  var testDescription: String {
    "\(trace) \(policy)/\(order) \(capacityBlocks.map { "\($0)" } ?? "inf") ttl \(ttlSeconds ?? 0)"
  }

  /// All runs; empty without the traces.
  static let all: [ReferenceRun] = {
    guard let folder = traceFolder(),
      let data = FileManager.default.contents(atPath: folder + "/reference.json"),
      let root = try? JSONSerialization.jsonObject(with: data) as? [String: Any],
      let traces = root["traces"] as? [String: [String: Any]]
    else { return [] }
    return traces.sorted { $0.key < $1.key }.flatMap { name, trace -> [ReferenceRun] in
      guard let file = trace["file"] as? String, let tokens = trace["block_size"] as? Int,
        let runs = trace["runs"] as? [[String: Any]]
      else { return [] }
      return runs.map { run in
        ReferenceRun(
          trace: name,
          file: folder + "/" + file,
          tokensPerBlock: tokens,
          policy: run["policy"] as? String ?? "",
          order: run["order"] as? String ?? "",
          capacityBlocks: run["capacity_blocks"] as? Int,
          ttlSeconds: run["ttl_s"] as? Double,
          isFullBlocksOnly: run["full_blocks_only"] as? Bool ?? false,
          fields: inOurWords(run).mapValues(comparable)
        )
      }
    }
  }()

  func replay() throws -> [String: String] {
    var replay = TraceReplay(file: file)
    replay.tokensPerBlock = tokensPerBlock
    replay.capacityBlocks = capacityBlocks
    replay.isFullBlocksOnly = isFullBlocksOnly
    replay.ttlMilliseconds = ttlSeconds.map { Int64($0 * 1000) }
    if policy != "lru" || order != "tail" {
      replay.policy = .reference(
        try #require(ReferenceCache.Policy(rawValue: policy)),
        try #require(ReferenceCache.TouchOrder(rawValue: order))
      )
    }
    let data = try JSONEncoder().encode(replay.run())
    let object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
    return object.mapValues(comparable)
  }
}

/// The reference has another name for one field, and a word for what is unlimited.
private func inOurWords(_ run: [String: Any]) -> [String: Any] {
  var run = run
  run["ttl_seconds"] = run.removeValue(forKey: "ttl_s")
  if run["capacity_blocks"] as? String == "inf" { run["capacity_blocks"] = NSNull() }
  return run
}

/// A JSON value as text; 5 and 5.0 are the same.
private func comparable(_ value: Any) -> String {
  (value as? NSNumber).map { "\($0.doubleValue)" } ?? "\(value)"
}

/// A trace in a file of a temporary folder.
func traceFile(_ lines: [String], in folder: TemporaryFolder) throws -> String {
  let path = folder.path + "/trace.jsonl"
  try lines.map { $0 + "\n" }.joined().write(toFile: path, atomically: false, encoding: .utf8)
  return path
}
