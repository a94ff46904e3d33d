import KVCore
import Testing

@testable import KVStore

/// Namespaces that differ in one field share nothing; forged keys find nothing.
@Suite struct IdentityTests {
  @Test func everyFieldSeparates() throws {
    let fixture = try StoreFixture()
    let base = StoreFixture.identity([2048]) {
      $0.parallelism.tensorSize = 4
      $0.parallelism.pipelineSize = 4
      $0.parallelism.contextSize = 4
    }
    let prompt = tokens(0..<64)
    try fixture.store.openNamespace(base).offload(prompt)
    try fixture.store.flush()
    let changes: [(String, (inout NamespaceIdentity) -> Void)] = [
      ("tokensPerBlock", { $0.tokensPerBlock = 8 }),
      ("regionsAreVariable", { $0.regionsAreVariable = true }),
      ("regionByteCounts", { $0.regionByteCounts = [1024, 1024] }),
      ("modelName", { $0.modelName = "other" }),
      ("weightsDigest", { $0.weightsDigest = [9] }),
      ("adapterDigest", { $0.adapterDigest = [9] }),
      ("tokenizerDigest", { $0.tokenizerDigest = [9] }),
      ("kvDtype", { $0.kvDtype = "bf16" }),
      ("kvQuantization", { $0.kvQuantization = "x" }),
      ("layout", { $0.layout = "NHD" }),
      ("rope", { $0.rope = "x" }),
      ("engineFormat", { $0.engineFormat = "x" }),
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
      ("another salt", { $0.salt = [8] }),
      ("extraByteCountMax", { $0.extraByteCountMax = 0 }),
    ]
    var ids: Set<NamespaceID> = [try fixture.store.openNamespace(base).id]
    for (name, change) in changes {
      var identity = base
      change(&identity)
      let namespace = try fixture.store.openNamespace(identity)
      #expect(ids.insert(namespace.id).inserted, "\(name)")
      #expect(try namespace.peek(prompt) == 0, "\(name)")
    }
    #expect(try fixture.store.openNamespace(base).peek(prompt) == 16)
  }

  /// Keys are cut to 8 bits, so that hundreds of prompts share each: a find is never taken for a proof.
  @Test(arguments: [UInt64(1), 2, 3])
  func forgedCollisionsAreMisses(_ seed: UInt64) throws {
    let fixture = try StoreFixture { $0.keyBitCount = 8 }
    let identity = StoreFixture.identity([512])
    var namespace = try fixture.store.openNamespace(identity)
    var stored: [[UInt32]] = []
    for prompt in 0..<400 {
      let words = [UInt32(prompt) &+ UInt32(seed) &* 10_000, 1, 2, 3]
      try namespace.offload(words)
      try fixture.store.flush()
      stored.append(words)
    }
    let statistics = try fixture.store.statistics()
    #expect(statistics.keyCollisions > 0)
    #expect(statistics.blocksStored <= 256)
    try fixture.reopen()
    namespace = try fixture.store.openNamespace(identity)
    var foundCount = 0
    for words in stored {
      let (result, isRight) = try namespace.restore(words)
      #expect(isRight, "seed \(seed), prompt \(words[0]): another prompt's bytes")
      foundCount += result.doneBlockCount
    }
    #expect(foundCount == Int(statistics.blocksStored))
  }

  /// Layer by layer, two prompts of one key each: their second blocks have the same tokens, and what comes of one is not the other's.
  @Test func regionsBehindForgedPrefixesAreNotMixed() throws {
    let fixture = try StoreFixture {
      $0.keyBitCount = 8
      $0.offloadTimeoutNanoseconds = 20_000_000
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([512, 512]))
    var firsts: [BlockKey: [UInt32]] = [:]
    var pair: ([UInt32], [UInt32])?
    for number in 0..<1000 where pair == nil {
      let block = [UInt32(number), 1, 2, 3]
      let keys = Prompt.with(block) { namespace.core.keys(of: $0) }
      pair = firsts.updateValue(block, forKey: keys[0]).map { ($0, block) }
    }
    let (known, forged) = try #require(pair)
    let second = tokens(5000..<5004)
    try namespace.offload(known)
    try namespace.offload(forged + second, regions: 1..<2)
    // The other one's is in the way until it is given up.
    #expect(try namespace.offload(known + second, from: 1, regions: 0..<1).firstProblem == .busy)
    let (result, isRight) = try namespace.restore(known + second)
    #expect(result.doneBlockCount == 1 && isRight)
  }

  @Test func aStoreNamespaceIsFoundAgain() throws {
    let fixture = try StoreFixture()
    let salted = StoreFixture.identity([64]) { $0.salt = Array("tenant a".utf8) }
    let id = try fixture.store.openNamespace(salted).id
    try fixture.store.openNamespace(salted).offload(tokens(0..<8))
    try fixture.reopen()
    let again = try fixture.store.openNamespace(salted)
    #expect(again.id == id)
    #expect(try again.peek(tokens(0..<8)) == 2)
  }
}
