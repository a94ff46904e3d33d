/// Sizes and a TTL for a store, from the hits of a trace.
package struct CapacityPlan: Equatable, Sendable {
  /// Index into the curves' capacities; nil = not even the largest is enough.
  package var hostCapacity: Int?
  package var diskCapacity: Int?
  /// Index into the TTLs; nil = none, blocks stay until they are evicted.
  package var ttl: Int?
  /// What the plan keeps of the hit tokens of an unlimited store.
  package var keptPart: Double
  /// Hit tokens of the unlimited store.
  package var possibleTokenCount: Int

  /// The smallest sizes that keep `part` of what is possible.
  ///
  /// The host tier is the smallest that serves `hostPart` of what the disk tier hits.
  package init(_ curves: HitCurves, keeping part: Double, hostPart: Double) {
    let possible = curves.hits(capacity: nil, ttl: nil).tokenCount
    let wanted = Double(possible) * part
    possibleTokenCount = possible
    func smallest(_ wanted: Double) -> Int? {
      curves.capacities.indices.first {
        Double(curves.hits(capacity: $0, ttl: nil).tokenCount) >= wanted
      }
    }
    let disk = smallest(wanted)
    diskCapacity = disk
    ttl = curves.ttls.indices.first {
      Double(curves.hits(capacity: disk, ttl: $0).tokenCount) >= wanted
    }
    let kept = curves.hits(capacity: disk, ttl: ttl).tokenCount
    hostCapacity = smallest(Double(kept) * hostPart)
    keptPart = ratio(kept, possible)
  }
}
