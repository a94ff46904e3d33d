import Glibc
import KVCore
import KVFile
import KVStore

/// A chain of blocks from disk, a layer at a time while the layers before are computed.
///
/// Computing is the device's: this thread sleeps for as long as a layer would take it. A layer's time is the whole restore's divided by the
/// layers, where loading and computing overlap most.
struct LayerwiseWorkload: Workload {
  let name = "layerwise"
  let pageCacheState = "dropped before every read from disk"

  private struct Times {
    var apart = Series()
    var overlapped = Series()
    var firstLayer = Series()
    var wholeRestore = Series()
    var layersRate = Series()
    var wholeRate = Series()
  }

  func run(_ bench: Bench) throws {
    let options = bench.options
    let regionCount = options.regionByteCounts.count
    let regionsPerLayer = options.regionsPerLayer
    guard regionCount % regionsPerLayer == 0 else {
      throw CommandFailure("layerwise needs --block-bytes to be a multiple of 64 bytes")
    }
    let memory = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    memory.fill(seed: options.seed)
    let target = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    let chain = BlockChain(memory, tokensPerBlock: options.tokensPerBlock, seed: options.seed)
    let layers = stride(from: 0, to: regionCount, by: regionsPerLayer).map {
      target.layer(chain.blocks, regions: $0..<$0 + regionsPerLayer)
    }
    let path = bench.freshStorePath()
    try reopened(bench, path) { namespace, store in
      var ignored: [UInt64] = []
      try chain.offload(to: namespace, latencies: &ignored)
      try store.flushAll()
    }
    try reopened(bench, path) { namespace, _ in
      target.clear()
      try overlap(chain, layers, namespace, layerNanoseconds: 0)
      if let block = memory.firstDifference(from: target, in: chain.blocks) {
        throw CommandFailure("WRONG BYTES: block \(block) came back differently, layer by layer")
      }
    }
    var times = Times()
    try bench.forEachRun("layerwise") { _ in
      try measure(bench, path, chain, target, layers, &times)
    }
    if !options.keep { try bench.remove(path) }
    report(bench, layers.count, times)
  }

  private func measure(
    _ bench: Bench,
    _ path: String,
    _ chain: BlockChain,
    _ target: BlockMemory,
    _ layers: [LayerTransfer],
    _ times: inout Times
  ) throws {
    var wholeTime: UInt64 = 0
    var layerTime: UInt64 = 0
    try reopened(bench, path) { namespace, _ in
      wholeTime = try nanoseconds { try chain.restore(chain.blocks, from: namespace, into: target) }
      layerTime = wholeTime / UInt64(layers.count)
      let computing = nanoseconds { for _ in layers { compute(layerTime) } }
      times.wholeRestore.values.append(Double(wholeTime))
      times.wholeRate.values.append(gigabytesPerSecond(target.byteCount, wholeTime))
      times.apart.values.append(Double(wholeTime + computing))
    }
    try reopened(bench, path) { namespace, _ in
      let start = monotonicNanoseconds()
      let firstLayer = try overlap(chain, layers, namespace, layerNanoseconds: layerTime)
      times.overlapped.values.append(Double(monotonicNanoseconds() - start))
      times.firstLayer.values.append(Double(firstLayer))
    }
    try reopened(bench, path) { namespace, _ in
      let time = try nanoseconds {
        try overlap(chain, layers, namespace, layerNanoseconds: 0)
      }
      times.layersRate.values.append(gigabytesPerSecond(target.byteCount, time))
    }
  }

  /// Starts a restore for each layer, and computes each as soon as it is there; returns when the first one was.
  @discardableResult
  private func overlap(
    _ chain: BlockChain,
    _ layers: [LayerTransfer],
    _ namespace: Namespace,
    layerNanoseconds: UInt64
  ) throws -> UInt64 {
    let start = monotonicNanoseconds()
    var firstLayer: UInt64?
    let operations = try chain.tokens.withPrompt(chain.tokens.count) { prompt in
      try layers.map { unsafe try namespace.startRestore(prompt, $0.transfer) }
    }
    // Whatever fails, no memory is let go of that is still lent.
    defer { for operation in operations { _ = try? operation.wait() } }
    for operation in operations {
      let result = try operation.wait()
      guard result?.doneBlockCount == chain.blocks.count else {
        throw CommandFailure("a layer is missing: \((result?.firstProblem).text)")
      }
      firstLayer = firstLayer ?? (monotonicNanoseconds() - start)
      if layerNanoseconds > 0 { compute(layerNanoseconds) }
    }
    return firstLayer ?? 0
  }

  /// What the device does meanwhile costs no CPU time here.
  private func compute(_ nanoseconds: UInt64) {
    var time = timespec(
      tv_sec: Int(nanoseconds / 1_000_000_000),
      tv_nsec: Int(nanoseconds % 1_000_000_000)
    )
    unsafe nanosleep(&time, nil)
  }

  private func reopened(
    _ bench: Bench,
    _ path: String,
    _ body: (Namespace, Store) throws -> Void
  ) throws {
    if try bench.storage.fileExists(path) { try bench.dropPageCache(of: path) }
    // Opened anew, so that its arena is empty.
    let store = try Store.open(bench.configuration(path))
    defer { closeQuietly(store) }
    try body(try store.openNamespace(bench.identity), store)
  }

  private func report(_ bench: Bench, _ layerCount: Int, _ times: Times) {
    let layers = ["layers": Parameter.integer(layerCount)]
    bench.add("disk: restore, then compute", times.apart, unit: "ns", with: layers)
    bench.add(
      "disk: layer by layer, computed as they come",
      times.overlapped,
      unit: "ns",
      limit: Limit(name: "restore, then compute", value: times.apart.median),
      with: layers
    )
    bench.add(
      "disk: until the first layer is there",
      times.firstLayer,
      unit: "ns",
      limit: Limit(name: "restore of all layers in one call", value: times.wholeRestore.median),
      with: layers
    )
    bench.add(
      "disk: throughput, layer by layer",
      times.layersRate,
      unit: "GB/s",
      limit: Limit(name: "restore of all layers in one call", value: times.wholeRate.median),
      with: layers
    )
  }
}
