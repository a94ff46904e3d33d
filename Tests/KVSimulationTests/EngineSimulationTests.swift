import KVSimulation
import Testing

/// The modelled engine, against figures worked out by hand and against the replay of one tier.
@Suite struct EngineSimulationTests {
  /// 1e12 operations a second, 1e9 bytes a second over each path, no fixed costs; 1 kB of KV a token.
  private func engine() -> EngineProfile {
    var device = DeviceProfile(
      name: "test",
      teraOperations: 1,
      memoryGigabytes: 1,
      memoryGigabytesPerSecond: 1e9,
      linkGigabytesPerSecond: 1,
      source: ""
    )
    device.linkLatencyNanoseconds = 0
    var model = ModelProfile(
      name: "test",
      billionParameters: 0.1,
      layerCount: 1,
      attentionHeadCount: 1,
      kvHeadCount: 1,
      headSize: 250,
      source: ""
    )
    model.elementByteCount = 2
    var engine = EngineProfile(device: device, model: model)
    engine.computeEfficiency = 1
    engine.stepOverheadNanoseconds = 0
    engine.reservedMemoryPart = 0
    return engine
  }

  private func request(at milliseconds: Int64, ids: [UInt64], output: Int = 1) -> TraceRequest {
    var request = TraceRequest()
    request.timestampMilliseconds = milliseconds
    request.tokensPerBlock = 100
    request.inputTokenCount = ids.count * 100
    request.outputTokenCount = output
    request.blockIDs = ids
    return request
  }

  private func store(hostBlocks: Int) -> StoreProfile {
    var store = StoreProfile()
    store.host = .init(
      byteCount: hostBlocks * 100_000,
      readBytesPerSecond: 1e9,
      latencyNanoseconds: 0
    )
    return store
  }

  @Test func prefillCostIsLinearAndQuadratic() {
    let engine = engine()
    #expect(engine.model.kvBytesPerToken == 1000)
    // 0.8 GB beside the weights.
    #expect(engine.slotCount(tokensPerBlock: 100) == 8000)
    let simulation = EngineSimulation(engine: engine, store: nil, tokensPerBlock: 100)
    simulation.add(request(at: 7, ids: [1, 2]))
    simulation.finish()
    // 200 tokens × 2e8 operations, and 200 × 201 / 2 pairs × 1000.
    #expect(simulation.result.firstTokenNanoseconds == [40_020_100])
    #expect(simulation.result.prefillNanoseconds == 40_020_100)
  }

  @Test func requestsWaitForOneAnother() {
    var engine = engine()
    engine.stepTokenCount = 200
    let simulation = EngineSimulation(engine: engine, store: nil, tokensPerBlock: 100)
    simulation.add(request(at: 0, ids: [1, 2]))
    simulation.add(request(at: 10, ids: [3, 4]))
    simulation.finish()
    // The second has waited for 30 ms of the first when its step begins.
    #expect(simulation.result.firstTokenNanoseconds == [40_020_100, 70_040_200])
  }

  @Test func hitsOnTheDeviceAreNotComputed() {
    let simulation = EngineSimulation(engine: engine(), store: nil, tokensPerBlock: 100)
    simulation.add(request(at: 0, ids: [1, 2]))
    simulation.add(request(at: 1000, ids: [1, 2, 3]))
    simulation.add(request(at: 2000, ids: [1, 2, 3]))
    simulation.finish()
    // All of the third is there, but an engine needs the logits of the last token.
    #expect(simulation.result.prefillTokenCount == 200 + 100 + 1)
    #expect(simulation.result.deviceHitTokenCount == 200 + 300)
  }

  /// A device of 8 blocks, so that the store has to help.
  private func smallDevice() -> EngineProfile {
    var engine = engine()
    engine.device.memoryByteCount = 0.2e9 + 8 * 100_000
    return engine
  }

  /// Network of 1e8 bytes a second, 50 ms of round trip.
  private func remote(_ blockCount: Int, reusedOnly: Bool = false) -> StoreProfile {
    var store = StoreProfile()
    store.remote = .init(
      byteCount: blockCount * 100_000,
      bytesPerSecond: 1e8,
      roundTripNanoseconds: 50_000_000,
      sendsReusedOnly: reusedOnly
    )
    return store
  }

  private func run(
    _ store: StoreProfile,
    declines: Bool = false,
    times: Int = 2
  ) -> EngineResult {
    var engine = smallDevice()
    engine.declinesSlowRestores = declines
    let simulation = EngineSimulation(engine: engine, store: store, tokensPerBlock: 100)
    for number in 0..<times {
      simulation.add(request(at: Int64(number) * 2000, ids: [1, 2, 3, 4]))
      simulation.add(request(at: Int64(number) * 2000 + 1000, ids: [11, 12, 13, 14, 15, 16]))
    }
    simulation.finish()
    return simulation.result
  }

  @Test func whatIsRemoteComesOverTheNetwork() {
    let result = run(remote(100), times: 1)
    #expect(result.remoteTokenCount == 0 && result.tiers.map(\.readByteCount) == [0])
    #expect(result.tiers.map(\.name) == ["remote"])
    #expect(result.tiers.map(\.writtenByteCount) == [1_000_000])
    let second = run(remote(100))
    // Of the first prompt one block is left on the device; of the second the two that the first had no use for.
    #expect(second.remoteTokenCount == second.restoredTokenCount && second.remoteTokenCount >= 600)
    #expect(second.tiers.map(\.hitBlockCount) == [second.remoteTokenCount / 100])
    #expect(second.tiers.map(\.readByteCount) == [second.remoteTokenCount * 1000])
    #expect(second.tiers.map(\.writtenByteCount) == [1_000_000])
    // Two round trips, 300 kB over the network, the last block over the link; then the last token.
    let last = 2 * 50_000_000 + 3_000_000 + 100_000
    #expect(second.firstTokenNanoseconds[2] >= Int64(last))
    #expect(second.firstTokenNanoseconds[2] < Int64(last) + 5_000_000)
  }

  @Test func whatIsSlowerThanComputingIsComputed() {
    // 100 ms of round trips beside 60 ms for 300 tokens.
    let result = run(remote(100), declines: true)
    #expect(result.remoteTokenCount < 600)
    #expect(result.declinedBlockCount >= 3)
  }

  @Test func whatIsUsedOnceIsNotSent() {
    let once = run(remote(100, reusedOnly: true), times: 1)
    #expect(once.tiers.map(\.writtenByteCount) == [0])
    let twice = run(remote(100, reusedOnly: true), times: 2)
    #expect(twice.tiers.map(\.writtenByteCount) == [1_000_000] && twice.remoteTokenCount == 0)
    let thrice = run(remote(100, reusedOnly: true), times: 3)
    #expect(thrice.remoteTokenCount >= 600)
  }

  @Test func theRemoteTierHasWhatTheLocalOnesLost() {
    // Two blocks of RAM: the rest comes from there.
    var both = remote(100)
    both.host = store(hostBlocks: 2).host
    let result = run(both)
    let hits = Dictionary(uniqueKeysWithValues: result.tiers.map { ($0.name, $0.hitBlockCount) })
    #expect(hits["remote"] ?? 0 > 0)
    #expect(result.remoteTokenCount == 100 * (hits["remote"] ?? 0))
    #expect(result.restoredTokenCount == 100 * ((hits["remote"] ?? 0) + (hits["host"] ?? 0)))
    // One that holds nothing is none.
    #expect(run(remote(0)).tiers.isEmpty)
  }

  @Test func restoresTakeTheirTimeOverTheLink() {
    let engine = smallDevice()
    let simulation = EngineSimulation(
      engine: engine,
      store: store(hostBlocks: 100),
      tokensPerBlock: 100
    )
    simulation.add(request(at: 0, ids: [1, 2, 3, 4]))
    simulation.add(request(at: 1000, ids: [11, 12, 13, 14, 15, 16]))
    simulation.add(request(at: 2000, ids: [1, 2, 3, 4]))
    simulation.finish()
    let result = simulation.result
    // Tail first: of the first prompt, the first block is left on the device (7 slots for the second and its output).
    #expect(result.deviceHitTokenCount == 100)
    #expect(result.restoredTokenCount == 300)
    #expect(result.restoredByteCount == 300_000)
    #expect(result.prefillTokenCount == 400 + 600 + 1)
    // 300 kB at 1 GB/s, then one token behind 399.
    #expect(result.firstTokenNanoseconds == [80_080_200, 120_180_300, 500_400])
    #expect(result.tiers.map(\.name) == ["host"])
    #expect(result.tiers.map(\.hitBlockCount) == [3])
    #expect(result.tiers.map(\.readByteCount) == [300_000])
    #expect(result.tiers.map(\.writtenByteCount) == [1_000_000])
  }

  @Test func slowRestoresAreDeclined() {
    var engine = smallDevice()
    engine.device.linkBytesPerSecond = 1e6
    let simulation = EngineSimulation(
      engine: engine,
      store: store(hostBlocks: 100),
      tokensPerBlock: 100
    )
    simulation.add(request(at: 0, ids: [1, 2, 3, 4]))
    simulation.add(request(at: 1000, ids: [11, 12, 13, 14, 15, 16]))
    simulation.add(request(at: 2000, ids: [1, 2, 3, 4]))
    simulation.finish()
    #expect(simulation.result.declinedBlockCount == 3)
    #expect(simulation.result.tiers.map(\.hitBlockCount) == [3])
    #expect(simulation.result.tiers.map(\.readByteCount) == [0])
    #expect(simulation.result.restoredTokenCount == 0)
    #expect(simulation.result.prefillTokenCount == 400 + 600 + 300)
  }

  @Test func requestsThatDoNotFitAreLeftOut() {
    let simulation = EngineSimulation(engine: smallDevice(), store: nil, tokensPerBlock: 100)
    simulation.add(request(at: 0, ids: Array(1...9)))
    simulation.add(request(at: 0, ids: Array(1...4)))
    simulation.finish()
    #expect(simulation.result.tooLargeCount == 1)
    #expect(simulation.result.firstTokenNanoseconds.count == 1)
  }

  /// Many requests on a device with few slots: pins, waits and evictions; every request ends, twice the same.
  @Test(arguments: 0..<6)
  func everyRequestEnds(seed: Int) {
    func run() -> EngineResult {
      var prompts = PromptGenerator(seed: UInt64(seed))
      var engine = engine()
      engine.device.memoryByteCount = 0.2e9 + 400 * 16_000
      engine.stepTokenCount = 256
      engine.batchRequestCount = 8
      let simulation = EngineSimulation(
        engine: engine,
        store: store(hostBlocks: 300),
        tokensPerBlock: 16
      )
      for step in 0..<500 {
        var request = prompts.next()
        request.outputTokenCount = step % 40
        simulation.add(request)
      }
      simulation.finish()
      #expect(simulation.faults() == [])
      return simulation.result
    }
    let result = run()
    #expect(result.firstTokenNanoseconds.count + result.tooLargeCount == 500)
    #expect(result.deviceEvictedBlockCount > 0)
    #expect(result == run())
    #expect(
      result.prefillTokenCount + result.deviceHitTokenCount + result.restoredTokenCount
        >= result.inputTokenCount
    )
  }
}
