/// Whether victims are chosen by hit density or by recency: density, unless it finds less than LRU would have.
///
/// A shadow of LRU (`RecencyShadow`) tells what that would have found. When density falls behind it, recency takes over for a
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

  /// Hits by which density is ahead, since it was last tried; bounded above, so that it is soon seen when habits change.
  private var lead = 0
  private var rest = restMin
  /// New blocks that are yet to come before density is tried again.
  private var restCount = 0

  /// Of all requests, with the older ones counting less and less: what LRU would have found, and how much more was found in truth.
  private var recencyHits = 0
  private var hitsAhead = 0

  package private(set) var usesDensity = true

  package init() {}

  /// Notes what was found of blocks that were asked for, or a part of that.
  ///
  /// - Parameters:
  ///   - hitCount: How many were found.
  ///   - recencyHitCount: How many LRU would have found.
  ///   - missCount: How many were not found.
  ///   - capacity: Blocks that there is room for; nil = not known yet.
  package mutating func note(
    hitCount: Int,
    recencyHitCount: Int,
    missCount: Int,
    capacity: Int?
  ) {
    guard let capacity else { return }
    let room = max(16, capacity)
    recencyHits += recencyHitCount
    hitsAhead += hitCount - recencyHitCount
    if recencyHits > Self.capacitiesRemembered * room {
      recencyHits /= 2
      hitsAhead /= 2
    }
    if usesDensity {
      lead += hitCount - recencyHitCount
      if lead >= room / Self.leadDivisor {
        lead = room / Self.leadDivisor
        rest = Self.restMin
      }
      guard lead < -room / Self.deficitDivisor, isBehind else { return }
      usesDensity = false
      restCount = rest * room
      rest = min(2 * rest, Self.restMax)
    } else {
      restCount -= missCount
      guard restCount <= 0 else { return }
      usesDensity = true
      lead = 0
    }
  }

  private var isBehind: Bool { hitsAhead < -recencyHits / Self.lossDivisor }
}
