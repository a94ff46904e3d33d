import Foundation
import KVCore
package import KVStore

/// Replays a trace through a real store: match, then offload of what is missing, then flush.
///
/// Payloads are tiny and lie in the catalog; the bound is a quota of `capacityBlocks` payloads. What it counts is what the
/// reference of the traces counts: leading blocks that were there.
package struct StoreReplay {
  package struct Outcome: Sendable {
    /// Leading blocks found, for each request.
    package var hits: [Int] = []
    package var insertedBlocks = 0

    package var hitBlocks: Int { hits.reduce(0, +) }

    /// SHA-256 of the hits as text, one a line.
    package var digest: String {
      let text = hits.map { "\($0)\n" }.joined()
      return SHA256.hash(Array(text.utf8)).map { byte in
        String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
      }.joined()
    }
  }

  package var capacityBlocks: Int?
  package var ttlSeconds: Double?
  /// Close and open the store again after so many requests.
  package var reopensEvery: Int?
  package var evictionPolicy = EvictionPolicy.lru
  package var folder: String

  private static let payloadByteCount = 8
  private static let digestByteCount = 32

  package init(folder: String) { self.folder = folder }

  package func run(_ requests: [TraceRequest]) throws -> Outcome {
    let clock = ManualClock()
    var configuration = StoreConfiguration(path: folder)
    configuration.capacityBytes = 2 << 30
    configuration.catalogBytes = 1 << 30
    configuration.hostBytes = 96 << 20
    // Nothing is written but what a flush asks for.
    configuration.commitIntervalNanoseconds = 60_000_000_000
    configuration.catalogIsSynced = false
    configuration.clock = clock
    configuration.evictionPolicy = evictionPolicy
    var identity = NamespaceIdentity()
    identity.identityMode = .digest
    identity.digestByteCount = Self.digestByteCount
    identity.tokensPerBlock = 16
    identity.regionByteCounts = [Self.payloadByteCount]
    identity.modelName = "replay"
    let limits = NamespaceLimits(
      quotaBytes: UInt64((capacityBlocks ?? 0) * Self.payloadByteCount),
      timeToLive: ttlSeconds.map { .idle(nanoseconds: UInt64($0 * 1e9)) }
    )

    var store = try Store.open(configuration)
    defer { try? store.close() }
    var namespace = try store.openNamespace(identity, limits: limits)
    var outcome = Outcome()
    var now: UInt64 = 0
    for (index, request) in requests.enumerated() {
      if let every = reopensEvery, index % every == every - 1 {
        try store.close()
        store = try Store.open(configuration)
        namespace = try store.openNamespace(identity)
      }
      if request.timestamp > now {
        clock.advance(nanoseconds: (request.timestamp - now) * 1_000_000)
        now = request.timestamp
      }
      let hits = try handle(request, store, namespace)
      outcome.hits.append(hits)
      outcome.insertedBlocks += request.ids.count - hits
    }
    return outcome
  }

  private func handle(
    _ request: TraceRequest,
    _ store: Store,
    _ namespace: Namespace
  ) throws -> Int {
    let words = request.ids.flatMap(Self.digest)
    return try Prompt.with(words) { prompt in
      let match = try namespace.match(prompt)
      // The lease would keep the path from what the next request does to it.
      if match.lease != 0 { _ = try store.releaseLease(match.lease) }
      let missing = request.ids.count - match.blockCount
      guard missing > 0 else { return match.blockCount }
      var payload = (UInt64(0))
      let result = try unsafe withUnsafeMutableBytes(of: &payload) { bytes in
        let span = unsafe TransferSpan(
          data: bytes.baseAddress,
          capacity: bytes.count,
          length: bytes.count
        )
        var spans = Array(repeating: span, count: missing)
        return try unsafe spans.withUnsafeMutableBufferPointer { spans in
          try namespace.offload(
            prompt,
            unsafe Transfer(firstBlock: match.blockCount, spans: spans)
          )
        }
      }
      // More than the whole capacity at once may push out its own first blocks' successors on the way.
      let mayBeCut = capacityBlocks.map { $0 < request.ids.count } ?? false
      guard result.doneBlockCount == missing || mayBeCut else {
        throw ReplayFailure.offload(done: result.doneBlockCount, of: missing)
      }
      let flushed = try store.flush()
      guard flushed.droppedErrorBlockCount == 0 else { throw ReplayFailure.dropped(flushed) }
      return match.blockCount
    }
  }

  /// 32 bytes that follow from the id, and from nothing else.
  private static func digest(_ id: UInt64) -> [UInt32] {
    var words: [UInt32] = []
    words.reserveCapacity(digestByteCount / 4)
    for part in 0..<UInt64(4) {
      // splitmix64's finaliser (Steele, Lea, Flood 2014).
      var hash = (id &* 4 &+ part) &+ 0x9E37_79B9_7F4A_7C15
      hash = (hash ^ hash >> 30) &* 0xBF58_476D_1CE4_E5B9
      hash = (hash ^ hash >> 27) &* 0x94D0_49BB_1331_11EB
      hash ^= hash >> 31
      words.append(UInt32(truncatingIfNeeded: hash))
      words.append(UInt32(truncatingIfNeeded: hash >> 32))
    }
    return words
  }
}

/// Why a replay could not go on.
package enum ReplayFailure: Error {
  case offload(done: Int, of: Int)
  case dropped(FlushResult)
}
