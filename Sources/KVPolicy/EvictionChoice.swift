/// Whether victims are chosen by hit density or by recency: density, unless it finds less than LRU would have.
///
/// A shadow of LRU on a sample of the blocks tells what that would have found. When density falls behind it, recency takes over for a
/// while, and for twice as long each time; then density is tried again. So what density may lose is bounded, whatever the workload.
package struct EvictionChoice {
  private static let deficitDivisor = 8
  private static let leadDivisor = 4
  /// How long recency rules at first, in capacities of new blocks.
  private static let restMin = 2
  private static let restMax = 64
  /// A loss of one hit in so many is not worth a change.
  private static let lossDivisor = 400
  private static let capacitiesRemembered = 256

  private var shadow = RecencyShadow()
  /// Sampled hits by which density is ahead, since it was last tried; bounded above, so that it is soon seen when habits change.
  private var lead = 0
  private var rest = restMin
  /// Sampled blocks that are yet to come before density is tried again.
  private var restCount = 0

  /// Of all requests, with the older ones counting less and less: what the shadow found, and how much more was found in truth.
  private var shadowHits = 0
  private var hitsAhead = 0

  package private(set) var usesDensity = true

  package init() {}

  /// Notes a request.
  ///
  /// - Parameters:
  ///   - blockIDs: Of its whole path.
  ///   - residentCount: How many of them were found.
  ///   - capacity: Blocks that there is room for; nil = not known yet.
  package mutating func note(_ blockIDs: [UInt64], residentCount: Int, capacity: Int?) {
    let hits = shadow.note(blockIDs, residentCount: residentCount, capacity: capacity)
    guard let capacity else { return }
    let room = max(16, shadow.sampledCount(capacity))
    shadowHits += hits.shadow
    hitsAhead += hits.resident - hits.shadow
    if shadowHits > Self.capacitiesRemembered * room {
      shadowHits /= 2
      hitsAhead /= 2
    }
    if usesDensity {
      lead += hits.resident - hits.shadow
      if lead >= room / Self.leadDivisor {
        lead = room / Self.leadDivisor
        rest = Self.restMin
      }
      guard lead < -room / Self.deficitDivisor, isBehind else { return }
      usesDensity = false
      restCount = rest * room
      rest = min(2 * rest, Self.restMax)
    } else {
      restCount -= hits.sampled - hits.resident
      guard restCount <= 0 else { return }
      usesDensity = true
      lead = 0
    }
  }

  private var isBehind: Bool { hitsAhead < -shadowHits / Self.lossDivisor }
}
