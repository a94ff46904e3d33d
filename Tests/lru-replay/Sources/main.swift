import Foundation
import KVReplaySupport
import KVSimulation
import KVStore

// Replays traces through the store and compares with their reference, and those by hit density with the simulator; see ../run.

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
// By hit density there is no reference but the simulator; what may differ is in docs/decisions/0009.
let sampledSizes = [("mooncake_conversation", 10_000)]
let allSizes = [
  ("mooncake_conversation", 1000), ("mooncake_conversation", 30_000), ("claude_code_mix_a", 1000),
]
for (trace, capacity) in isWhole ? sampledSizes + allSizes : sampledSizes {
  let start = Date()
  let requests = try folder.requests(of: trace)
  let reference = try folder.lruRuns(of: trace).first {
    $0.capacityBlocks == capacity && $0.ttlSeconds == nil && !$0.fullBlocksOnly
  }
  let cache = DensityCache(capacity: capacity)
  let simulated = requests.reduce(0) { hits, request in
    var simulatedRequest = KVSimulation.TraceRequest()
    simulatedRequest.timestampMilliseconds = Int64(request.timestamp)
    simulatedRequest.blockIDs = request.ids
    return hits + cache.handle(simulatedRequest)
  }
  try? FileManager.default.removeItem(atPath: work)
  var replay = StoreReplay(folder: work)
  replay.capacityBlocks = capacity
  replay.evictionPolicy = .density
  let hits = try replay.run(requests).hitBlocks
  let lru = reference?.hitBlocks ?? .max
  let isRight = hits > lru && abs(hits - simulated) * 20 <= simulated
  runCount += 1
  if !isRight { failureCount += 1 }
  let seconds = String(format: "%.1f", Date().timeIntervalSince(start))
  print(
    "\(trace), capacity \(capacity), hit density: \(hits) hit blocks, simulator \(simulated), lru \(lru)"
      + "\(isRight ? "" : ", DIFFERS") (\(seconds) s)"
  )
}
print("lru replay: \(runCount - failureCount) of \(runCount) runs are right")
exit(failureCount == 0 ? 0 : 1)
