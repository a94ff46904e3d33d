import Foundation
import KVReplaySupport

// Replays traces through the store and compares with their reference; see ../run.

let arguments = CommandLine.arguments.dropFirst()
guard let folder = TraceFolder.fromEnvironment() else {
  print("lru replay: skipped, no traces (KVSTORE_TRACES)")
  exit(0)
}
let isWhole = arguments.contains("--all")
let work = FileManager.default.temporaryDirectory.path + "/kvstore-replay-\(getpid())"
defer { try? FileManager.default.removeItem(atPath: work) }

/// The runs that a short test takes.
func isSampled(_ run: TraceFolder.Reference) -> Bool {
  run.capacityBlocks == 50_000 && !run.fullBlocksOnly
    && (run.ttlSeconds == nil || run.ttlSeconds == 1800)
}

var runCount = 0
var failureCount = 0
for trace in ["tiny", "mooncake_conversation", "claude_code_mix_a"] {
  let requests = try folder.requests(of: trace)
  let runs = try folder.lruRuns(of: trace).filter { run in
    trace == "tiny" || isWhole || isSampled(run)
  }
  for (index, run) in runs.enumerated() {
    let start = Date()
    try? FileManager.default.removeItem(atPath: work)
    var replay = StoreReplay(folder: work)
    replay.capacityBlocks = run.capacityBlocks
    replay.ttlSeconds = run.ttlSeconds
    // Every other run is closed and opened again on the way.
    if index % 2 == 1 { replay.reopensEvery = max(requests.count / 3, 2) }
    let outcome = try replay.run(run.fullBlocksOnly ? requests.map(\.fullBlocksOnly) : requests)
    let isRight = outcome.hitBlocks == run.hitBlocks && outcome.digest == run.perRequestSHA256
    runCount += 1
    if !isRight { failureCount += 1 }
    let verdict = isRight ? "as the reference" : "DIFFERS, reference \(run.hitBlocks)"
    let seconds = String(format: "%.1f", Date().timeIntervalSince(start))
    print("\(trace), \(run): \(outcome.hitBlocks) hit blocks, \(verdict) (\(seconds) s)")
  }
}
print("lru replay: \(runCount - failureCount) of \(runCount) runs give the reference's digest")
exit(failureCount == 0 ? 0 : 1)
