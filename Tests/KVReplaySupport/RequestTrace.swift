import Foundation
import KVCore

/// One request of a trace: docs of the format lie beside the traces.
package struct TraceRequest: Decodable, Sendable {
  /// Arrival, milliseconds from the start.
  package var timestamp: UInt64
  package var inputLength: Int
  package var blockSize: Int?
  /// One id a block, head first; an id stands for its whole prefix.
  package var ids: [UInt64]

  private enum CodingKeys: String, CodingKey {
    case timestamp
    case inputLength = "input_length"
    case blockSize = "block_size"
    case ids = "hash_ids"
  }

  /// What an engine that never stores partial blocks has of it.
  package var fullBlocksOnly: TraceRequest {
    var request = self
    request.ids = Array(ids.prefix(inputLength / (blockSize ?? 512)))
    return request
  }
}

/// The published traces and the results that a simulator of few lines has for them.
package struct TraceFolder {
  package let path: String

  /// A run of `reference.json`.
  package struct Reference: Decodable, Sendable, CustomStringConvertible {
    package var policy: String
    package var order: String
    /// A number of blocks, or nil for "inf".
    package var capacityBlocks: Int?
    package var ttlSeconds: Double?
    package var hitBlocks: Int
    package var insertedBlocks: Int
    package var fullBlocksOnly: Bool
    package var perRequestSHA256: String

    private enum CodingKeys: String, CodingKey {
      case policy, order
      case capacityBlocks = "capacity_blocks"
      case ttlSeconds = "ttl_s"
      case hitBlocks = "hit_blocks"
      case insertedBlocks = "inserted_blocks"
      case fullBlocksOnly = "full_blocks_only"
      case perRequestSHA256 = "per_request_sha256"
    }

    package init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: CodingKeys.self)
      policy = try values.decode(String.self, forKey: .policy)
      order = try values.decode(String.self, forKey: .order)
      capacityBlocks = try? values.decode(Int.self, forKey: .capacityBlocks)
      ttlSeconds = try values.decode(Double?.self, forKey: .ttlSeconds)
      hitBlocks = try values.decode(Int.self, forKey: .hitBlocks)
      insertedBlocks = try values.decode(Int.self, forKey: .insertedBlocks)
      fullBlocksOnly = try values.decode(Bool.self, forKey: .fullBlocksOnly)
      perRequestSHA256 = try values.decode(String.self, forKey: .perRequestSHA256)
    }

    package var description: String {
      let capacity = capacityBlocks.map { String($0) } ?? "inf"
      let life = ttlSeconds.map { ", idle TTL \(Int($0)) s" } ?? ""
      return "capacity \(capacity)\(life)\(fullBlocksOnly ? ", full blocks only" : "")"
    }
  }

  private struct Results: Decodable {
    struct Trace: Decodable { var runs: [Reference] }
    var traces: [String: Trace]
  }

  package init(path: String) { self.path = path }

  /// Where KVSTORE_TRACES points; nil when there are none.
  package static func fromEnvironment() -> TraceFolder? {
    let path = ProcessInfo.processInfo.environment["KVSTORE_TRACES"] ?? "../shared/traces"
    return FileManager.default.fileExists(atPath: path + "/reference.json")
      ? TraceFolder(path: path) : nil
  }

  /// The LRU runs in which tails leave first: what the store does.
  package func lruRuns(of trace: String) throws -> [Reference] {
    let data = try Data(contentsOf: URL(filePath: path + "/reference.json"))
    let results = try JSONDecoder().decode(Results.self, from: data)
    return (results.traces[trace]?.runs ?? []).filter { $0.policy == "lru" && $0.order == "tail" }
  }

  /// The requests of a trace, the first `limit` of them.
  package func requests(of trace: String, limit: Int = .max) throws -> [TraceRequest] {
    var data = Data()
    if FileManager.default.fileExists(atPath: "\(path)/\(trace).jsonl") {
      data = try Data(contentsOf: URL(filePath: "\(path)/\(trace).jsonl"))
    } else {
      let process = Process()
      process.executableURL = URL(filePath: "/usr/bin/env")
      process.arguments = ["zstd", "-dcq", "\(path)/\(trace).jsonl.zst"]
      let pipe = Pipe()
      process.standardOutput = pipe
      try process.run()
      data = try pipe.fileHandleForReading.readToEnd() ?? Data()
      process.waitUntilExit()
    }
    let decoder = JSONDecoder()
    return try data.split(separator: UInt8(ascii: "\n")).prefix(limit).map {
      try decoder.decode(TraceRequest.self, from: $0)
    }
  }
}
