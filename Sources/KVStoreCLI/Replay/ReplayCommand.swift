import ArgumentParser
import KVSimulation

extension ReplaySummary: CommandDocument {
  static let schema = "replay"
}

/// `kvstore replay`: what the store would do with a trace of requests.
struct ReplayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replay",
    abstract: "Replay a trace of requests through the store's index, pools and policies.",
    discussion: """
      A trace is JSON Lines, plain or zstd-compressed, a request a line: timestamp (ms), input_length, \
      output_length and hash_ids (Mooncake), perhaps session and turn; or token_ids. No payload is moved.

      EXAMPLES
        kvstore replay trace.jsonl.zst --policy lru --capacity-blocks 50000
        kvstore replay trace.jsonl --capacity-blocks unlimited --ttl 3600 --json
        kvstore replay trace.jsonl --policy opt --capacity-blocks 50000
        kvstore replay trace.jsonl --gpu h100 --model llama-3.1-8b --host 64GiB --disk 1TiB
        kvstore replay trace.jsonl --gpu h100 --disk 200GiB --remote 2TiB --remote-bandwidth 3
      """
  )

  @Argument(help: "The trace; - is the standard input.", completion: .file())
  var file: String

  @Option(
    help: """
      What leaves first: \(PolicyArgument.names). density is what the store does unless it is told to do lru; the others are \
      models to compare with. (default: density; with what is for lru only, lru)
      """
  )
  var policy: PolicyArgument?

  @Option(help: "In which order a request's blocks are touched: tail (the store's) or head.")
  var order = ReferenceCache.TouchOrder.tail

  @Option(help: "Blocks that the tier holds, or unlimited.")
  var capacityBlocks = CapacityArgument(blockCount: nil)

  @Option(help: "Seconds after its last use that a block expires; lru only.")
  var ttl: Double?

  @Option(help: "Which new blocks come in: always, second-touch or adaptive; lru only.")
  var admission = AdmissionArgument.always

  @Option(
    help: "Bytes that are written in a day at most, in the mean; lru only. (default: no bound)"
  )
  var writeBudget: ByteSize?

  @Option(
    help: "Bytes of a block, which --write-budget needs and the bytes written are counted in."
  )
  var blockBytes: ByteSize?

  @OptionGroup(title: "Trace") var trace: TraceOptions

  @OptionGroup(title: "Simulated engine") var engine: EngineOptions

  @Flag(help: "Print JSON, for programs.")
  var json = false

  /// The store's own, as far as the replay has it.
  private var chosenPolicy: PolicyArgument {
    if let policy { return policy }
    let isForLRU =
      order != .tail || ttl != nil || admission != .always || writeBudget != nil
      || engine.gpu != nil
    return isForLRU ? .lru : .density
  }

  func validate() throws {
    let policy = chosenPolicy
    if let ttl {
      guard ttl > 0, ttl <= 1e9 else { throw ValidationError("--ttl must be above 0.") }
      guard policy == .lru, order == .tail else {
        throw ValidationError("--ttl needs --policy lru in tail order.")
      }
    }
    if admission != .always || writeBudget != nil {
      guard policy == .lru, order == .tail, engine.gpu == nil else {
        throw ValidationError("--admission and --write-budget need --policy lru in tail order.")
      }
    }
    if writeBudget != nil, blockBytes == nil {
      throw ValidationError("--write-budget needs --block-bytes.")
    }
    if engine.gpu != nil, policy != .lru || order != .tail || capacityBlocks.blockCount != nil {
      throw ValidationError(
        "With --gpu the tiers are sized by --host, --disk, --archive, --remote, and run lru."
      )
    }
    if policy == .density, order != .tail {
      throw ValidationError("density runs in tail order only.")
    }
    if engine.gpu == nil, engine.remote.byteCount > 0 {
      throw ValidationError("--remote needs --gpu.")
    }
    if engine.gpu == nil, engine.plot != nil { throw ValidationError("--plot needs --gpu.") }
    if engine.gpu != nil, file == "-" {
      throw ValidationError("With --gpu the trace is read twice: give a file.")
    }
    if policy == .opt, file == "-" {
      throw ValidationError("opt reads the trace twice: give a file.")
    }
  }

  func run() throws {
    var replay = trace.replay(file)
    replay.policy = chosenPolicy.policy(order)
    replay.capacityBlocks = capacityBlocks.blockCount
    replay.admission = admission.policy
    replay.writeBytesPerDay = writeBudget?.byteCount ?? 0
    replay.blockByteCount = blockBytes?.byteCount ?? 0
    replay.ttlMilliseconds = ttl.map { Int64(($0 * 1000).rounded()) }
    if engine.gpu != nil { return try simulate(replay) }
    let progress = ProgressLine()
    let summary = try readingTrace {
      try replay.run { count in
        if count % 256 == 0 { progress.show("\(count) requests") }
      }
    }
    progress.clear()
    if json {
      print(try jsonText(summary))
    } else {
      print(Self.lines(summary).joined(separator: "\n"))
    }
  }

  private func simulate(_ replay: TraceReplay) throws {
    let profile = try engine.engineProfile()
    let store = try engine.storeProfile(ttlMilliseconds: replay.ttlMilliseconds)
    let progress = ProgressLine()
    let comparison = try readingTrace {
      try replay.compare(profile, store) { count in
        if count % 16 == 0 { progress.show("\(count) requests") }
      }
    }
    progress.clear()
    let report = EngineReport(comparison, engine: profile, store: store)
    if json {
      print(try jsonText(report))
    } else {
      print(report.lines().joined(separator: "\n"))
    }
    if let folder = engine.plot {
      let files = try EnginePlots(comparison: comparison, report: report).write(to: folder)
      writeError(files.map { "wrote \($0)\n" }.joined())
    }
  }

  private static func lines(_ summary: ReplaySummary) -> [String] {
    let counts = summary.counts
    var fields: [(name: String, value: String)] = [
      ("policy", "\(summary.policy), \(summary.order) first"),
      ("capacity", summary.capacityBlocks.map { counted($0, "block") } ?? "unlimited"),
    ]
    if let ttl = summary.ttlSeconds { fields.append(("TTL", decimalText(ttl, digits: 4) + " s")) }
    fields += [
      ("requests", "\(summary.requestCount)"),
      ("blocks", "\(summary.blockCount)"),
      ("hit blocks", "\(summary.hitBlockCount) (\(percentText(summary.blockHitRate)))"),
      ("tokens", "\(summary.tokenCount)"),
      ("hit tokens", "\(summary.hitTokenCount) (\(percentText(summary.tokenHitRate)))"),
      ("hit rate", "\(percentText(summary.meanRequestHitRate)) in the mean of requests"),
      ("second half", "\(percentText(summary.secondHalfTokenHitRate)) of its tokens"),
      ("inserted", "\(counts.insertedBlockCount)"),
      ("written", counts.writtenBlockCount.map { "\($0)" } ?? "–"),
      ("declined", "\(counts.declinedBlockCount)"),
      ("evicted", "\(counts.evictedBlockCount)"),
      ("expired", "\(counts.expiredBlockCount)"),
      ("resident", "\(counts.residentBlockCount), at most \(counts.peakBlockCount)"),
    ]
    if counts.unreachableBlockCount > 0 {
      fields.append(("unreachable", "\(counts.unreachableBlockCount)"))
    }
    if summary.badLineCount > 0 { fields.append(("bad lines", "\(summary.badLineCount)")) }
    return fieldLines(fields)
  }
}

/// A part of 1 in percent, to a hundredth.
func percentText(_ part: Double) -> String {
  String(format: "%.2f %%", part * 100)
}

/// Puts the errors of a trace into words.
func readingTrace<R>(_ body: () throws -> R) throws -> R {
  do { return try body() } catch let error as TraceError {
    switch error {
    case .cannotOpen(let file, let code):
      throw CommandFailure("\(file): cannot open: \(errorText(code))")
    case .cannotRead(let file, let code):
      throw CommandFailure("\(file): cannot read: \(errorText(code))")
    case .badLine:
      throw CommandFailure("\(error) (--skip-bad goes on without such lines)")
    case .badCompression, .gzip, .empty: throw CommandFailure("\(error)")
    }
  }
}
