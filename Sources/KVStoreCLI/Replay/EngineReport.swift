import KVSimulation

/// What a store would save an engine: the same trace with it and without it.
struct EngineReport: CommandDocument {
  static let schema = "replay-engine"

  /// One arm.
  struct Arm: Encodable {
    var prefillTokens: Int
    var deviceHitTokens: Int
    var restoredTokens: Int
    var restoredBytes: Int
    /// Of the restored ones, those from the remote tier.
    var remoteTokens: Int
    var declinedBlocks: Int
    var prefillSeconds: Double
    var busySeconds: Double
    var stalledSeconds: Double
    var endSeconds: Double
    var steps: Int
    var timeToFirstTokenSeconds: Percentiles

    private enum CodingKeys: String, CodingKey {
      case steps
      case prefillTokens = "prefill_tokens"
      case deviceHitTokens = "device_hit_tokens"
      case restoredTokens = "restored_tokens"
      case restoredBytes = "restored_bytes"
      case remoteTokens = "remote_tokens"
      case declinedBlocks = "declined_blocks"
      case prefillSeconds = "prefill_gpu_seconds"
      case busySeconds = "busy_seconds"
      case stalledSeconds = "stalled_seconds"
      case endSeconds = "end_seconds"
      case timeToFirstTokenSeconds = "ttft_seconds"
    }

    init(_ result: EngineResult, deviceCount: Int) {
      prefillTokens = result.prefillTokenCount
      deviceHitTokens = result.deviceHitTokenCount
      restoredTokens = result.restoredTokenCount
      restoredBytes = result.restoredByteCount
      remoteTokens = result.remoteTokenCount
      declinedBlocks = result.declinedBlockCount
      prefillSeconds = seconds(result.prefillNanoseconds) * Double(deviceCount)
      busySeconds = seconds(result.busyNanoseconds)
      stalledSeconds = seconds(result.stalledNanoseconds)
      endSeconds = seconds(result.endNanoseconds)
      steps = result.stepCount
      timeToFirstTokenSeconds = Percentiles(
        p50: seconds(result.firstTokenNanoseconds(percentile: 0.5)),
        p90: seconds(result.firstTokenNanoseconds(percentile: 0.9)),
        p99: seconds(result.firstTokenNanoseconds(percentile: 0.99))
      )
    }
  }

  struct Percentiles: Encodable {
    var p50: Double
    var p90: Double
    var p99: Double
  }

  /// The simulated machine, with its times in seconds.
  struct Engine: Encodable {
    struct Device: Encodable {
      var name: String
      var operationsPerSecond: Double
      var memoryByteCount: Double
      var memoryBytesPerSecond: Double
      var linkBytesPerSecond: Double
      var linkLatencySeconds: Double
      var source: String
    }

    var device: Device
    var model: ModelProfile
    var deviceCount: Int
    var computeEfficiency: Double
    var memoryEfficiency: Double
    var stepTokenCount: Int
    var stepOverheadSeconds: Double
    var batchRequestCount: Int
    var reservedMemoryPart: Double
    var overlapsTransfers: Bool
    var declinesSlowRestores: Bool

    init(_ profile: EngineProfile) {
      device = Device(
        name: profile.device.name,
        operationsPerSecond: profile.device.operationsPerSecond,
        memoryByteCount: profile.device.memoryByteCount,
        memoryBytesPerSecond: profile.device.memoryBytesPerSecond,
        linkBytesPerSecond: profile.device.linkBytesPerSecond,
        linkLatencySeconds: Double(profile.device.linkLatencyNanoseconds) / 1e9,
        source: profile.device.source
      )
      model = profile.model
      deviceCount = profile.deviceCount
      computeEfficiency = profile.computeEfficiency
      memoryEfficiency = profile.memoryEfficiency
      stepTokenCount = profile.stepTokenCount
      stepOverheadSeconds = Double(profile.stepOverheadNanoseconds) / 1e9
      batchRequestCount = profile.batchRequestCount
      reservedMemoryPart = profile.reservedMemoryPart
      overlapsTransfers = profile.overlapsTransfers
      declinesSlowRestores = profile.declinesSlowRestores
    }
  }

  /// The tiers below the device.
  struct Store: Encodable {
    struct Tier: Encodable {
      var byteCount: Int
      var storedPart: Double
      var readBytesPerSecond: Double
      var latencySeconds: Double

      init(_ tier: StoreProfile.TierProfile) {
        byteCount = tier.byteCount
        storedPart = tier.storedPart
        readBytesPerSecond = tier.readBytesPerSecond
        latencySeconds = Double(tier.latencyNanoseconds) / 1e9
      }
    }

    var host: Tier?
    var disk: Tier?
    struct Remote: Encodable {
      var byteCount: Int
      var bytesPerSecond: Double
      var roundTripSeconds: Double
      /// all, or reused.
      var writes: String

      init(_ remote: StoreProfile.RemoteProfile) {
        byteCount = remote.byteCount
        bytesPerSecond = remote.bytesPerSecond
        roundTripSeconds = Double(remote.roundTripNanoseconds) / 1e9
        writes = remote.sendsReusedOnly ? "reused" : "all"
      }
    }

    var archive: Tier?
    var remote: Remote?
    var ttlSeconds: Double?

    init(_ profile: StoreProfile) {
      host = profile.host.map(Tier.init)
      disk = profile.disk.map(Tier.init)
      archive = profile.archive.map(Tier.init)
      remote = profile.remote.map(Remote.init)
      ttlSeconds = profile.ttlMilliseconds.map { Double($0) / 1000 }
    }
  }

  var engine: Engine
  var store: Store
  var tokensPerBlock: Int
  var blockBytes: Int
  var deviceSlots: Int
  var requests: Int
  var tooLargeRequests: Int
  var badLines: Int
  var inputTokens: Int
  var withStore: Arm
  var withoutStore: Arm
  var prefillTokensSaved: Int
  var gpuSecondsSaved: Double
  var deviceEvictedBlocks: Int
  var tiers: [TierResult]
  var turns: [TurnResult]

  private enum CodingKeys: String, CodingKey {
    case engine, store, requests, tiers, turns
    case tokensPerBlock = "tokens_per_block"
    case blockBytes = "block_bytes"
    case deviceSlots = "device_slots"
    case tooLargeRequests = "too_large_requests"
    case badLines = "bad_lines"
    case inputTokens = "input_tokens"
    case withStore = "with_store"
    case withoutStore = "without_store"
    case prefillTokensSaved = "prefill_tokens_saved"
    case gpuSecondsSaved = "gpu_seconds_saved"
    case deviceEvictedBlocks = "device_evicted_blocks"
  }

  init(
    _ comparison: EngineComparison,
    engine: EngineProfile,
    store: StoreProfile
  ) {
    let (with, without) = (comparison.withStore, comparison.withoutStore)
    self.engine = Engine(engine)
    self.store = Store(store)
    tokensPerBlock = comparison.tokensPerBlock
    blockBytes = engine.blockByteCount(tokensPerBlock: tokensPerBlock)
    deviceSlots = engine.slotCount(tokensPerBlock: tokensPerBlock)
    requests = with.requestCount
    tooLargeRequests = with.tooLargeCount
    badLines = comparison.badLineCount
    inputTokens = with.inputTokenCount
    withStore = Arm(with, deviceCount: engine.deviceCount)
    withoutStore = Arm(without, deviceCount: engine.deviceCount)
    prefillTokensSaved = without.prefillTokenCount - with.prefillTokenCount
    gpuSecondsSaved = rounded(withoutStore.prefillSeconds - withStore.prefillSeconds)
    deviceEvictedBlocks = with.deviceEvictedBlockCount
    tiers = with.tiers
    turns = with.turns
  }

  /// The report as text.
  func lines() -> [String] {
    var lines = fieldLines([
      (
        "engine",
        "\(engine.deviceCount) × \(engine.device.name), \(engine.model.name), \(byteText(blockBytes)) a block of "
          + "\(tokensPerBlock) tokens"
      ),
      ("device tier", "\(deviceSlots) slots, \(byteText(deviceSlots * blockBytes))"),
      (
        "requests",
        "\(requests)"
          + (tooLargeRequests > 0 ? ", of those \(tooLargeRequests) too large for the device" : "")
          + (badLines > 0 ? ", and \(counted(badLines, "bad line"))" : "")
      ),
      ("input tokens", "\(inputTokens)"),
    ])
    lines.append("")
    lines += armTable()
    lines.append("")
    lines.append(
      "saved: \(prefillTokensSaved) prefill tokens (\(percentText(ratio(prefillTokensSaved, withoutStore.prefillTokens))) of those "
        + "without a store), \(decimalText(gpuSecondsSaved, digits: 4)) GPU seconds"
    )
    lines.append("")
    lines += tierTable()
    if !turns.isEmpty { lines += [""] + turnTable() }
    return lines
  }

  private func ratio(_ part: Int, _ whole: Int) -> Double {
    whole == 0 ? 0 : Double(part) / Double(whole)
  }

  private func armTable() -> [String] {
    var table = TextTable([("", .left), ("with store", .right), ("without", .right)])
    func row(_ name: String, _ value: (Arm) -> String) {
      table.append([name, value(withStore), value(withoutStore)])
    }
    func secondsText(_ value: Double) -> String { decimalText(value, digits: 4) + " s" }
    row("prefill tokens") { "\($0.prefillTokens)" }
    row("hit tokens, device") { "\($0.deviceHitTokens)" }
    row("hit tokens, restored") { "\($0.restoredTokens)" }
    if store.remote != nil { row("of those, remote") { "\($0.remoteTokens)" } }
    row("moved to the device") { byteText($0.restoredBytes) }
    row("GPU time, prefill") { secondsText($0.prefillSeconds) }
    row("TTFT p50") { secondsText($0.timeToFirstTokenSeconds.p50) }
    row("TTFT p90") { secondsText($0.timeToFirstTokenSeconds.p90) }
    row("TTFT p99") { secondsText($0.timeToFirstTokenSeconds.p99) }
    row("last request done") { secondsText($0.endSeconds) }
    return table.lines()
  }

  private func tierTable() -> [String] {
    var table = TextTable([
      ("tier", .left), ("hit blocks", .right), ("read", .right), ("written", .right),
      ("evicted", .right), ("expired", .right), ("at most", .right),
    ])
    for tier in tiers {
      table.append([
        tier.name, "\(tier.hitBlockCount)", byteText(tier.readByteCount),
        byteText(tier.writtenByteCount), "\(tier.evictedBlockCount)", "\(tier.expiredBlockCount)",
        byteText(tier.peakByteCount),
      ])
    }
    return table.lines()
  }

  private func turnTable() -> [String] {
    var table = TextTable([
      ("turn", .right), ("requests", .right), ("input tokens", .right), ("reused", .right),
    ])
    for turn in turns where turn.requestCount > 0 {
      table.append([
        turn.turn == EngineResult.turnMax ? "\(turn.turn)+" : "\(turn.turn)",
        "\(turn.requestCount)", "\(turn.tokenCount)",
        percentText(ratio(turn.hitTokenCount, turn.tokenCount)),
      ])
    }
    return table.lines()
  }
}

/// To the microsecond.
private func seconds(_ nanoseconds: Int64) -> Double { rounded(Double(nanoseconds) / 1e9) }
