import KVCore
import Testing

/// One change to each field of the identity record.
enum IdentityChange {
  static let all: [(name: String, change: @Sendable (inout NamespaceIdentity) -> Void)] = [
    (
      "identityMode",
      {
        $0.identityMode = .digest
        $0.digestByteCount = 32
      }
    ),
    ("tokensPerBlock", { $0.tokensPerBlock = 32 }),
    ("regionsAreVariable", { $0.regionsAreVariable = true }),
    ("regionByteCounts", { $0.regionByteCounts = [2048, 2049] }),
    ("regionByteCounts, one merged", { $0.regionByteCounts = [4096] }),
    ("modelName", { $0.modelName = "other" }),
    ("weightsDigest", { $0.weightsDigest = [9] }),
    ("adapterDigest", { $0.adapterDigest = [9] }),
    ("tokenizerDigest", { $0.tokenizerDigest = [9] }),
    ("kvDtype", { $0.kvDtype = "bf16" }),
    ("kvQuantization", { $0.kvQuantization = "per-token" }),
    ("layout", { $0.layout = "NHD" }),
    ("rope", { $0.rope = "theta=1e6" }),
    ("engineFormat", { $0.engineFormat = "engine 2" }),
    ("engineBytes", { $0.engineBytes = [9] }),
    ("layerCount", { $0.shape.layerCount = 7 }),
    ("kvHeadCount", { $0.shape.kvHeadCount = 7 }),
    ("headSize", { $0.shape.headSize = 7 }),
    ("tensorRank", { $0.parallelism.tensorRank = 1 }),
    ("tensorSize", { $0.parallelism.tensorSize = 2 }),
    ("pipelineRank", { $0.parallelism.pipelineRank = 1 }),
    ("pipelineSize", { $0.parallelism.pipelineSize = 2 }),
    ("contextRank", { $0.parallelism.contextRank = 1 }),
    ("contextSize", { $0.parallelism.contextSize = 2 }),
    ("salt", { $0.salt = [9] }),
    ("extraByteCountMax", { $0.extraByteCountMax = 128 }),
    ("groups", { $0.groups = [KVCacheGroup(regions: 0..<1, windowTokenCount: 512)] }),
    ("groups, the window", { $0.groups = [KVCacheGroup(regions: 0..<1, windowTokenCount: 513)] }),
    ("groups, the regions", { $0.groups = [KVCacheGroup(regions: 0..<2, windowTokenCount: 512)] }),
    ("groups, without a window", { $0.groups = [KVCacheGroup(regions: 0..<2)] }),
    ("side section", { $0.sideSection = section("a", 1) }),
    ("side section, the name", { $0.sideSection = section("b", 1) }),
    ("side section, the owner", { $0.sideSection = section("a", 2) }),
  ]
}

@Suite struct NamespaceIdentityTests {
  private static let saltKey = [UInt8](repeating: 3, count: 32)

  private static func base() -> NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.regionByteCounts = [2048, 2048]
    identity.modelName = "model"
    identity.parallelism.tensorSize = 4
    identity.parallelism.pipelineSize = 4
    identity.parallelism.contextSize = 4
    identity.weightsDigest = [1, 2, 3]
    return identity
  }

  @Test func everyFieldChangesTheRecord() {
    var records: Set<[UInt8]> = [Self.base().encoded(saltKey: Self.saltKey)]
    for (name, change) in IdentityChange.all {
      var changed = Self.base()
      change(&changed)
      #expect(changed.firstInvalidArgument() == nil, "\(name)")
      #expect(records.insert(changed.encoded(saltKey: Self.saltKey)).inserted, "\(name)")
    }
  }

  @Test func neighbouringTextsDoNotRunTogether() {
    var a = Self.base()
    var b = Self.base()
    (a.modelName, a.kvDtype) = ("ab", "c")
    (b.modelName, b.kvDtype) = ("a", "bc")
    #expect(a.encoded(saltKey: []) != b.encoded(saltKey: []))
  }

  @Test func aRecordReadsBack() {
    for (name, change) in IdentityChange.all where name != "salt" {
      var identity = Self.base()
      change(&identity)
      #expect(NamespaceIdentity(record: identity.encoded(saltKey: [])) == identity, "\(name)")
    }
  }

  @Test func theSaltItselfIsNotInTheRecord() {
    var identity = Self.base()
    identity.salt = Array("tenant secret".utf8)
    let record = identity.encoded(saltKey: Self.saltKey)
    #expect(NamespaceIdentity.recordHasSalt(record))
    let text = String(decoding: record, as: UTF8.self)
    #expect(!text.contains("tenant secret"))
    #expect(record != identity.encoded(saltKey: [UInt8](repeating: 4, count: 32)))
  }

  @Test func aDamagedRecordIsRefusedOrDiffers() {
    let record = Self.base().encoded(saltKey: [])
    for length in 0..<record.count {
      _ = NamespaceIdentity(record: Array(record.prefix(length)))
    }
    for index in record.indices {
      var damaged = record
      damaged[index] ^= 0x41
      #expect(NamespaceIdentity(record: damaged) != Self.base() || damaged == record)
    }
  }
}

private func section(_ name: String, _ byte: UInt8) -> SideSection {
  SideSection(name: name, ownerDigest: [UInt8](repeating: byte, count: 32))
}
