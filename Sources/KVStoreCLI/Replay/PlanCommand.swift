import ArgumentParser
import KVSimulation

/// `kvstore plan`: how large a store should be.
struct PlanCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plan",
    abstract: "Hit rate over capacity and TTL, and the sizes that are worth having.",
    discussion: """
      Reads the trace once. The rates are exact for least recently used, by stack distance; a block's bytes \
      come from the model's KV shape or from --block-bytes.

      EXAMPLES
        kvstore plan --trace trace.jsonl.zst --model llama-3.1-8b
        kvstore plan --trace trace.jsonl --block-bytes 2MiB --keep 0.99 --plot pictures
      """
  )

  @Option(help: "The trace; - is the standard input.", completion: .file())
  var trace: String

  @Option(help: "The model: \(ModelProfile.presets.map(\.name).joined(separator: ", ")).")
  var model = "llama-3.1-8b"

  @Option(help: "Bytes of a block, instead of a model.")
  var blockBytes: ByteSize?

  @Option(help: "The part of the hits of an unlimited store that is to be kept.")
  var keep = 0.95

  @Option(help: "The part of those hits that the host tier is to serve.")
  var hostPart = 0.5

  @OptionGroup(title: "Trace") var options: TraceOptions

  @Flag(help: "Print JSON, for programs.")
  var json = false

  @Option(help: "Write a picture of the curves (SVG) into this folder.")
  var plot: String?

  func validate() throws {
    guard keep > 0, keep <= 1 else { throw ValidationError("--keep must be above 0, at most 1.") }
    guard hostPart > 0, hostPart <= 1 else {
      throw ValidationError("--host-part must be above 0, at most 1.")
    }
    if blockBytes == nil { _ = try modelProfile() }
  }

  private func modelProfile() throws -> ModelProfile {
    guard let profile = ModelProfile.presets.first(where: { $0.name == model }) else {
      throw ValidationError("There is no model of this name; --help lists them.")
    }
    return profile
  }

  /// Minutes, hours and days that people choose from.
  private static let ttlSeconds: [Int64] = [
    60, 300, 600, 1800, 3600, 7200, 14_400, 28_800, 86_400, 604_800,
  ]

  func run() throws {
    let replay = options.replay(trace)
    let bytesPerToken = try modelProfile().kvBytesPerToken
    let progress = ProgressLine()
    let result = try readingTrace {
      try replay.plan(
        // 1, 1.5, 2, 3, 4, 6 … GiB, up to 96 TiB.
        sizes: (0...33).map { ((2 + $0 % 2) << 29) << ($0 / 2) },
        blockByteCount: { blockBytes?.byteCount ?? bytesPerToken * $0 },
        ttlMilliseconds: Self.ttlSeconds.map { $0 * 1000 }
      ) { count in
        if count % 256 == 0 { progress.show("\(count) requests") }
      }
    }
    progress.clear()
    let plan = CapacityPlan(result.curves, keeping: keep, hostPart: hostPart)
    let report = PlanReport(result, plan, keep: keep, hostPart: hostPart)
    print(json ? try jsonText(report) : report.lines().joined(separator: "\n"))
    if let plot {
      let files = try writeCharts([("capacity", report.chart())], to: plot)
      writeError(files.map { "wrote \($0)\n" }.joined())
    }
  }
}

/// What `kvstore plan` found.
struct PlanReport: CommandDocument {
  static let schema = "plan"

  /// One size, under each TTL.
  struct Row: Encodable {
    var bytes: Int
    var blocks: Int
    /// By TTL, the last one without.
    var tokenHitRates: [Double]

    private enum CodingKeys: String, CodingKey {
      case bytes, blocks
      case tokenHitRates = "token_hit_rates"
    }
  }

  struct Recommendation: Encodable {
    var hostBytes: Int?
    var diskBytes: Int?
    var ttlSeconds: Int?
    var keptPart: Double

    private enum CodingKeys: String, CodingKey {
      case hostBytes = "host_bytes"
      case diskBytes = "disk_bytes"
      case ttlSeconds = "ttl_seconds"
      case keptPart = "kept_part"
    }
  }

  var requests: Int
  var badLines: Int
  var blockBytes: Int
  var totalBlocks: Int
  var totalTokens: Int
  var uniqueBlocks: Int
  var possibleTokenHitRate: Double
  var ttlSeconds: [Int]
  var rows: [Row]
  var recommendation: Recommendation
  private let hostPart: Double

  private enum CodingKeys: String, CodingKey {
    case requests, rows, recommendation
    case badLines = "bad_lines"
    case blockBytes = "block_bytes"
    case totalBlocks = "total_blocks"
    case totalTokens = "total_tokens"
    case uniqueBlocks = "unique_blocks"
    case possibleTokenHitRate = "possible_token_hit_rate"
    case ttlSeconds = "ttl_seconds"
  }

  init(_ result: PlanResult, _ plan: CapacityPlan, keep: Double, hostPart: Double) {
    let curves = result.curves
    self.hostPart = hostPart
    requests = curves.requestCount
    badLines = result.badLineCount
    blockBytes = result.blockByteCount
    totalBlocks = curves.blockCount
    totalTokens = curves.tokenCount
    uniqueBlocks = curves.uniqueBlockCount
    func rate(_ capacity: Int?, _ ttl: Int?) -> Double {
      let hits = curves.hits(capacity: capacity, ttl: ttl).tokenCount
      return curves.tokenCount == 0 ? 0 : rounded(Double(hits) / Double(curves.tokenCount))
    }
    possibleTokenHitRate = rate(nil, nil)
    ttlSeconds = curves.ttls.map { Int($0 / 1000) }
    let sizes = zip(result.sizes, curves.capacities)
    // The first size that holds everything, and none behind it.
    let needed = sizes.prefix { $0.1 < curves.uniqueBlockCount }.count + 1
    rows = sizes.prefix(needed).enumerated().map { index, size in
      Row(
        bytes: size.0,
        blocks: size.1,
        tokenHitRates: curves.ttls.indices.map { rate(index, $0) } + [rate(index, nil)]
      )
    }
    recommendation = Recommendation(
      hostBytes: plan.hostCapacity.map { result.sizes[$0] },
      diskBytes: plan.diskCapacity.map { result.sizes[$0] },
      ttlSeconds: plan.ttl.map { Int(curves.ttls[$0] / 1000) },
      keptPart: rounded(plan.keptPart)
    )
  }

  func lines() -> [String] {
    var lines = fieldLines([
      ("requests", "\(requests)" + (badLines > 0 ? ", and \(counted(badLines, "bad line"))" : "")),
      ("input tokens", "\(totalTokens)"),
      ("blocks", "\(uniqueBlocks) different ones, \(byteText(blockBytes)) each"),
      ("at best", percentText(possibleTokenHitRate) + " of the tokens, with unlimited room"),
    ])
    lines += ["", "part of the input tokens that hit, by size and TTL:"]
    var table = TextTable(
      [("size", .right)] + ttlSeconds.map { (Self.ttlText($0), .right) } + [("no TTL", .right)]
    )
    for row in rows {
      table.append([byteText(row.bytes)] + row.tokenHitRates.map(percentText))
    }
    lines += table.lines() + [""]
    let advice = recommendation
    guard let disk = advice.diskBytes, let host = advice.hostBytes else {
      lines.append("not even \(byteText(rows.last?.bytes ?? 0)) keep that much of what is possible")
      return lines
    }
    lines.append(
      "recommended: host \(byteText(host)), disk \(byteText(disk)), "
        + (advice.ttlSeconds.map { "TTL \(Self.ttlText($0))" } ?? "no TTL")
        + ": keeps \(percentText(advice.keptPart)) of what is possible, "
        + "\(percentText(hostPart)) of that from RAM or more"
    )
    return lines
  }

  private static func ttlText(_ seconds: Int) -> String {
    switch seconds {
    case ..<3600: "\(seconds / 60) min"
    case ..<86_400: "\(seconds / 3600) h"
    default: "\(seconds / 86_400) d"
    }
  }

  func chart() -> SVGChart {
    let chosen = [60, 600, 3600, 86_400]
    var series = ttlSeconds.enumerated().filter { chosen.contains($0.element) }.map { ttl in
      SVGChart.Series(
        name: "TTL " + Self.ttlText(ttl.element),
        points: rows.map { (Double($0.bytes) / 1e9, $0.tokenHitRates[ttl.offset]) }
      )
    }
    series.append(
      SVGChart.Series(
        name: "no TTL",
        points: rows.map { (Double($0.bytes) / 1e9, $0.tokenHitRates.last ?? 0) }
      )
    )
    return SVGChart(
      title: "How much hits, by the size of the store?",
      xName: "GB",
      yName: "part of the input tokens",
      isXLogarithmic: true,
      series: series,
      yMax: 1
    )
  }
}
