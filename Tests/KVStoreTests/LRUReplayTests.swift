import Foundation
import KVReplaySupport
import Testing

/// The store evicts what the textbook's LRU evicts, to the block: replays of traces with known results.
///
/// `Tests/lru-replay/run` does the same with the long traces, which a debug build is too slow for.
@Suite(.enabled(if: TraceFolder.fromEnvironment() != nil, "no traces: set KVSTORE_TRACES"))
struct LRUReplayTests {
  @Test(arguments: [nil, 3])
  func tinyTraceGivesTheReference(reopensEvery: Int?) throws {
    let folder = try #require(TraceFolder.fromEnvironment())
    let requests = try folder.requests(of: "tiny")
    let runs = try folder.lruRuns(of: "tiny").filter { $0.ttlSeconds == nil }
    #expect(runs.count >= 7)
    for run in runs {
      let outcome = try replay(requests, run, reopensEvery: reopensEvery)
      #expect(outcome.hitBlocks == run.hitBlocks, "\(run)")
      #expect(outcome.digest == run.perRequestSHA256, "\(run)")
    }
  }

  /// A prefix of a long trace against a list of blocks in order of use.
  @Test(arguments: [300, 1000])
  func aPrefixOfALongTraceGivesWhatAListGives(capacityBlocks: Int) throws {
    let folder = try #require(TraceFolder.fromEnvironment())
    let requests = try folder.requests(of: "mooncake_conversation", limit: 150)
    var reference = TinyReference(capacityBlocks: capacityBlocks)
    let expected = requests.map { reference.handle($0) }
    let work = FileManager.default.temporaryDirectory.path + "/kvstore-replay-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: work) }
    var replay = StoreReplay(folder: work)
    replay.capacityBlocks = capacityBlocks
    #expect(try replay.run(requests).hits == expected)
    #expect(expected.reduce(0, +) > 0)
  }

  private func replay(
    _ requests: [TraceRequest],
    _ run: TraceFolder.Reference,
    reopensEvery: Int?
  ) throws -> StoreReplay.Outcome {
    let work = FileManager.default.temporaryDirectory.path + "/kvstore-replay-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: work) }
    var replay = StoreReplay(folder: work)
    replay.capacityBlocks = run.capacityBlocks
    replay.ttlSeconds = run.ttlSeconds
    replay.reopensEvery = reopensEvery
    return try replay.run(run.fullBlocksOnly ? requests.map(\.fullBlocksOnly) : requests)
  }
}

/// LRU as the traces' README defines it, one block at a time.
private struct TinyReference {
  let capacityBlocks: Int
  private var lastTouch: [UInt64: Int] = [:]
  private var touchCount = 0

  init(capacityBlocks: Int) { self.capacityBlocks = capacityBlocks }

  mutating func handle(_ request: TraceRequest) -> Int {
    let hits = request.ids.prefix { lastTouch[$0] != nil }.count
    for id in request.ids.reversed() {
      touchCount += 1
      lastTouch[id] = touchCount
    }
    let surplus = lastTouch.count - capacityBlocks
    if surplus > 0 {
      for (id, _) in lastTouch.sorted(by: { $0.value < $1.value }).prefix(surplus) {
        lastTouch[id] = nil
      }
    }
    return hits
  }
}
