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
