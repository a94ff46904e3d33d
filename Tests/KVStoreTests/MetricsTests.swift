import KVCore
import KVStore
import Testing

@Suite struct MetricsTests {
  /// The samples by name and labels.
  private func samples(_ text: String) -> [String: Double] {
    var samples: [String: Double] = [:]
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      guard let space = line.lastIndex(of: " ") else { continue }
      samples[String(line[..<space])] = Double(line[line.index(after: space)...])
    }
    return samples
  }

  @Test func countersAreThoseOfTheStore() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(
      StoreFixture.identity { $0.modelName = "a \"model\"\nwith \\ in its name" }
    )
    let tokens = (0..<40).map { UInt32($0) }
    try namespace.offload(tokens)
    try fixture.store.flush()
    try namespace.restore(tokens)
    _ = try namespace.match(tokens)
    let text = try fixture.store.metricsText()
    let found = samples(text)
    let labels = #"{namespace="1",model="a \"model\"\nwith \\ in its name"}"#
    #expect(found["kvstore_blocks" + labels] == 10)
    #expect(found["kvstore_payload_bytes" + labels] == 640_000)
    #expect(found["kvstore_matches_total"] == 1)
    #expect(found["kvstore_match_tokens_found_total"] == 40)
    #expect(found[#"kvstore_restored_blocks_total{tier="host"}"#] == 10)
    #expect(found["kvstore_offloaded_bytes_total"] == 640_000)
    #expect(found["kvstore_offload_seconds_count"] == 1)
    #expect(found[#"kvstore_offload_seconds_bucket{le="+Inf"}"#] == 1)
    #expect(found[#"kvstore_restore_seconds_count{tier="host"}"#] == 1)
    #expect(found[#"kvstore_slots{tier="disk",state="used"}"#] ?? 0 >= 10)
    #expect(found["kvstore_poisoned"] == 0)
  }

  @Test func bucketsOfAHistogramAddUp() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    for number in 0..<20 { try namespace.offload((0..<8).map { UInt32($0 + number * 8) }) }
    let buckets = try fixture.store.metricsText().split(separator: "\n")
      .filter { $0.hasPrefix("kvstore_offload_seconds_bucket") }
      .compactMap { line in line.split(separator: " ").last.flatMap { Int($0) } }
    #expect(buckets.count == 20)
    #expect(buckets == buckets.sorted())
    #expect(buckets.last == 20)
  }

  @Test func whoOnlyLooksHasNoCountersOfItsOwn() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    try namespace.offload((0..<8).map { UInt32($0) })
    try fixture.store.flush()
    let text = try fixture.store.metricsText(includesProcess: false)
    #expect(!text.contains("_total"))
    #expect(samples(text).keys.contains { $0.hasPrefix("kvstore_blocks") })
  }
}
