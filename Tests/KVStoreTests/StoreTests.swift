import Foundation
import KVCore
import KVStore
import Testing

@Suite struct StoreTests {
  @Test func offloadedBlocksAreThereAtOnceAndAfterReopening() throws {
    let fixture = try StoreFixture()
    let prompt = tokens(0..<80)
    do {
      let namespace = try fixture.store.openNamespace(StoreFixture.identity())
      #expect(try namespace.offload(prompt).doneBlockCount == 20)
      #expect(try namespace.match(prompt).blockCount == 20)
      let (result, isRight) = try namespace.restore(prompt)
      #expect(result.doneBlockCount == 20 && isRight)
      #expect(try fixture.store.flush().durableBlockCount == 20)
    }
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let match = try namespace.match(prompt + [1, 2])
    #expect(match.blockCount == 20 && match.diskBlockCount == 20 && match.tokenCount == 80)
    let (result, isRight) = try namespace.restore(prompt)
    #expect(result.doneBlockCount == 20 && isRight && result.diskBlockCount == 20)
    // Promoted by the first restore.
    let (again, isRightAgain) = try namespace.restore(prompt)
    #expect(again.hostBlockCount == 20 && isRightAgain)
  }

  @Test func aWarmMatchComputesNoHash() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let prompt = tokens(0..<400)
    try namespace.offload(prompt)
    try fixture.store.flush()
    let before = try fixture.store.statistics()
    for _ in 0..<10 { #expect(try namespace.match(prompt).blockCount == 100) }
    let after = try fixture.store.statistics()
    #expect(after.hashesComputed == before.hashesComputed)
    #expect(after.matchCalls == before.matchCalls + 10)
    #expect(after.indexNodes < after.indexBlocks / 10)
  }

  @Test func forksShareTheirPrefix() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let trunk = tokens(0..<40)
    let branches = (1...4).map { trunk + Array(repeating: UInt32($0 * 1000), count: 16) }
    for branch in branches { try namespace.offload(branch) }
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksStored == 10 + 4 * 4)
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(StoreFixture.identity())
    for branch in branches {
      let (result, isRight) = try reopened.restore(branch)
      #expect(result.doneBlockCount == 14 && isRight)
    }
  }

  @Test func leaveOneTokenLeavesOne() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let prompt = tokens(0..<40)
    try namespace.offload(prompt)
    #expect(try namespace.match(prompt, .leaveOneToken).blockCount == 9)
    #expect(try namespace.match(prompt + [7], .leaveOneToken).blockCount == 10)
    #expect(try namespace.match(prompt).blockCount == 10)
  }

  @Test func aPeekLeavesNoTrace() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let prompt = tokens(0..<40)
    try namespace.offload(prompt)
    try fixture.store.flush()
    let before = try fixture.store.statistics()
    let match = try namespace.match(prompt, .peek)
    #expect(match.blockCount == 10 && match.lease == 0)
    #expect(try fixture.store.statistics() == before)
  }

  /// A crash then loses a second of uses at most.
  @Test func aUseIsCommittedThoughNothingElseHappens() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let prompt = tokens(0..<40)
    try namespace.offload(prompt)
    try fixture.store.flush()
    // The writer has gone to sleep by then.
    usleep(300_000)
    let before = try fixture.store.statistics().catalogCommits
    _ = try namespace.match(prompt)
    let deadline = ContinuousClock.now + .seconds(60)
    while try fixture.store.statistics().catalogCommits == before, ContinuousClock.now < deadline {
      usleep(10_000)
    }
    #expect(try fixture.store.statistics().catalogCommits > before)
  }

  @Test func aChildWithoutItsParentIsRefused() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let result = try namespace.offload(tokens(0..<40), from: 5)
    #expect(result.firstProblem == .parentMissing && result.doneBlockCount == 0)
    #expect(try namespace.peek(tokens(0..<40)) == 0)
  }

  @Test func regionsMayComeLayerByLayer() throws {
    let fixture = try StoreFixture()
    let identity = StoreFixture.identity([5000, 7000, 9000, 11_000])
    let namespace = try fixture.store.openNamespace(identity)
    let prompt = tokens(0..<24)
    for region in [2, 0, 3] {
      #expect(try namespace.offload(prompt, regions: region..<region + 1).firstProblem == nil)
      #expect(try namespace.peek(prompt) == 0)
    }
    try namespace.offload(prompt, regions: 1..<2)
    #expect(try namespace.peek(prompt) == 6)
    try fixture.store.flush()
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(identity)
    let readBefore = try fixture.store.statistics().diskBytesRead
    let (first, isFirstRight) = try reopened.restore(prompt, regions: 0..<1)
    #expect(first.doneBlockCount == 6 && isFirstRight)
    // Header page and the first region's pages only.
    #expect(try fixture.store.statistics().diskBytesRead - readBefore <= 6 * 3 * 4096)
    let (middle, isMiddleRight) = try reopened.restore(prompt, regions: 1..<3)
    #expect(middle.doneBlockCount == 6 && isMiddleRight)
    let (all, isAllRight) = try reopened.restore(prompt)
    #expect(all.doneBlockCount == 6 && isAllRight)
  }

  @Test(arguments: [
    [64], [1], [8000, 8000], [40_000, 24_000], [131_072, 131_072, 4096],
    Array(repeating: 512, count: 200),
  ])
  func layoutsOfAllKinds(_ regionByteCounts: [Int]) throws {
    let fixture = try StoreFixture()
    let identity = StoreFixture.identity(regionByteCounts)
    let prompt = tokens(0..<64)
    try fixture.store.openNamespace(identity).offload(prompt)
    try fixture.store.flush()
    try fixture.reopen()
    let (result, isRight) = try fixture.store.openNamespace(identity).restore(prompt)
    #expect(result.doneBlockCount == 16 && isRight)
  }

  @Test func digestsStandInForTokens() throws {
    let fixture = try StoreFixture()
    let identity = StoreFixture.identity {
      $0.identityMode = .digest
      $0.digestByteCount = 32
    }
    let prompt = tokens(0..<80)  // ten digests of eight words
    let namespace = try fixture.store.openNamespace(identity)
    #expect(try namespace.offload(prompt).doneBlockCount == 10)
    try fixture.store.flush()
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(identity)
    #expect(try reopened.match(prompt).tokenCount == 40)
    let (result, isRight) = try reopened.restore(prompt)
    #expect(result.doneBlockCount == 10 && isRight)
  }

  @Test func extraBytesArePartOfTheIdentity() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([64]))
    let words = tokens(0..<8)
    let image: [UInt8] = [1, 2, 3]
    let other: [UInt8] = [1, 2, 4]
    var payload = [UInt8](repeating: 7, count: 128)
    func prompt<R>(
      _ extra: [UInt8],
      _ body: (Prompt) throws(StoreError) -> R
    ) throws -> R {
      try words.withUnsafeBufferPointer { words in
        try extra.withUnsafeBytes { bytes in
          try body(Prompt(words: words.baseAddress, wordCount: 8, extra: [bytes]))
        }
      }
    }
    try payload.withUnsafeMutableBytes { payload in
      var spans = (0..<2).map {
        TransferSpan(data: payload.baseAddress! + $0 * 64, capacity: 64, length: 64)
      }
      _ = try spans.withUnsafeMutableBufferPointer { spans in
        try prompt(image) { (prompt) throws(StoreError) in
          try namespace.offload(prompt, Transfer(spans: spans))
        }
      }
    }
    for reopens in [false, true] {
      if reopens { try fixture.reopen() }
      let namespace = try fixture.store.openNamespace(StoreFixture.identity([64]))
      func count(_ extra: [UInt8]) throws -> Int {
        try prompt(extra) { (prompt) throws(StoreError) in
          try namespace.match(prompt, options: .peek).blockCount
        }
      }
      #expect(try count(image) == 2)
      #expect(try count(other) == 0)
      #expect(try count([]) == 0)
    }
  }

  @Test func forgettingRemovesABlockAndAllBelowIt() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let trunk = tokens(0..<20)
    let left = trunk + tokens(100..<120)
    let right = trunk + tokens(200..<220)
    try namespace.offload(left)
    try namespace.offload(right)
    #expect(try namespace.forget(trunk + tokens(100..<104)) == 5)
    #expect(try namespace.peek(left) == 5)
    #expect(try namespace.peek(right) == 10)
    #expect(try namespace.forget([]) == 10)
    #expect(try namespace.peek(right) == 0)
    #expect(try fixture.store.statistics().blocksStored == 0)
    try fixture.reopen()
    #expect(try fixture.store.openNamespace(StoreFixture.identity()).peek(right) == 0)
  }

  @Test func aHandleAfterCloseIsAnError() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let store = fixture.store
    try fixture.reopen()
    #expect(throws: StoreError.closed) { try store.flush() }
    #expect(throws: StoreError.closed) { try store.close() }
    #expect(throws: StoreError.closed) { try namespace.match(tokens(0..<8)) }
  }

  @Test func twoOpensOfOneProcessShareEverything() throws {
    let fixture = try StoreFixture()
    let second = try Store.open(fixture.configuration)
    let prompt = tokens(0..<40)
    try fixture.store.openNamespace(StoreFixture.identity()).offload(prompt)
    #expect(try second.openNamespace(StoreFixture.identity()).peek(prompt) == 10)
    try second.close()
    #expect(try fixture.store.openNamespace(StoreFixture.identity()).peek(prompt) == 10)
  }
}
