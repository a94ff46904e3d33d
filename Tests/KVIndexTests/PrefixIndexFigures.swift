import KVCore
import KVIndex
import KVTestSupport
import Testing

// Prints figures; asserts what does not depend on the machine. Timings mean something with
// `swift test -c release --filter PrefixIndexFigures` only.

@Suite struct PrefixIndexFigures {
  private let namespace = NamespaceID(rawValue: 1)

  private func fill(
    _ index: PrefixIndex,
    runCount: Int,
    blocksPerRun: Int,
    tokensPerBlock: Int = 16
  ) -> [UInt32] {
    index.addNamespace(namespace, wordsPerBlock: tokensPerBlock)
    var generator = SeededGenerator(seed: 1)
    var tokens: [UInt32] = []
    for run in 0..<runCount {
      tokens = (0..<blocksPerRun * tokensPerBlock).map { _ in
        UInt32(truncatingIfNeeded: generator.next() % 128_000)
      }
      var location = IndexLocation.root
      for block in 0..<blocksPerRun {
        let words = Array(tokens[block * tokensPerBlock..<(block + 1) * tokensPerBlock])
        let place = BlockPosition(run: RunID(rawValue: UInt64(run) + 1), position: UInt32(block))
        let entry = IndexEntry(blockKey: BlockKey(high: 1, low: UInt64(block)))
        location =
          index.append(namespace, after: location, words: words, entry: entry, at: place)?
          .location ?? .root
      }
    }
    return tokens
  }

  @Test func matchOf131072Tokens() {
    let index = PrefixIndex(fingerprintSeed: 1)
    let tokens = fill(index, runCount: 1, blocksPerRun: 8192)
    var segments: [IndexSegment] = []
    let clock = ContinuousClock()
    var times: [Duration] = []
    for _ in 0..<200 {
      let start = clock.now
      let match = unsafe tokens.withUnsafeBufferPointer { buffer in
        unsafe buffer.baseAddress.map { base in
          unsafe index.match(namespace, words: base, blockCount: 8192, segments: &segments)
        }
      }
      times.append(clock.now - start)
      #expect(match?.matchedBlockCount == 8192)
    }
    times.sort()
    print("match of 131,072 tokens: min \(times[0]), median \(times[100]), max \(times[199])")
  }

  @Test(arguments: [(100_000, 1), (10_000, 10), (100, 1000)])
  func bytesPerBlock(runCount: Int, blocksPerRun: Int) {
    let index = PrefixIndex(fingerprintSeed: 1)
    _ = fill(index, runCount: runCount, blocksPerRun: blocksPerRun)
    let statistics = index.statistics
    #expect(statistics.blockCount == runCount * blocksPerRun)
    let beyondTokens = statistics.byteCount / statistics.blockCount - 64
    print("\(runCount) runs of \(blocksPerRun): \(beyondTokens) bytes a block beyond its tokens")
    if blocksPerRun >= 10 { #expect(beyondTokens <= 160) }
  }

  @Test func manyFirstBlocks() {
    let index = PrefixIndex(fingerprintSeed: 1)
    let clock = ContinuousClock()
    #if DEBUG
      let runCount = 50_000
    #else
      let runCount = 1_000_000
    #endif
    let start = clock.now
    _ = fill(index, runCount: runCount, blocksPerRun: 1, tokensPerBlock: 2)
    print("\(runCount) first blocks: \(clock.now - start), \(index.statistics)")
    // A random pair may come twice: then the block was there already.
    let blockCount = index.statistics.blockCount
    #expect(blockCount > runCount - 1000)
    let trimStart = clock.now
    #expect(index.trim(toByteCount: 0) { _ in true } == blockCount)
    print("trimmed in \(clock.now - trimStart)")
    #expect(index.statistics.blockCount == 0)
  }
}
