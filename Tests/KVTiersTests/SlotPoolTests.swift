import KVTestSupport
import KVTiers
import Testing

@Suite struct SlotPoolTests {
  /// Random operations against a trivial pool: sets and an array in order of use.
  @Test(arguments: UInt64(1)...20)
  func behavesAsItsModel(_ seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var pool = SlotPool()
    let count = Int.random(in: 1...12, using: &random)
    pool.addSegment(first: 0, count: count)
    var references = [Int: Int]()
    var doomed: Set<Int> = []
    var cached: [Int] = []
    for step in 0..<600 {
      switch Int.random(in: 0..<6, using: &random) {
      case 0:
        let slot = pool.allocateFree()
        #expect((slot != nil) == (references.count + cached.count < count))
        if let slot { references[slot] = 1 }
      case 1:
        let slot = pool.reclaimOldest()
        #expect(slot == cached.first, "seed \(seed), step \(step)")
        if let slot {
          cached.removeFirst()
          references[slot] = 1
        }
      case 2:
        guard let slot = (Array(references.keys.sorted()) + cached).randomElement(using: &random)
        else { continue }
        pool.pin(slot)
        cached.removeAll { $0 == slot }
        references[slot, default: 0] += 1
      case 3, 4:
        guard let slot = references.keys.sorted().randomElement(using: &random) else { continue }
        pool.unpin(slot)
        references[slot]! -= 1
        if references[slot] == 0 {
          references[slot] = nil
          if doomed.remove(slot) == nil { cached.append(slot) }
        }
      default:
        guard let slot = (Array(references.keys.sorted()) + cached).randomElement(using: &random)
        else { continue }
        pool.discard(slot)
        if references[slot] != nil { doomed.insert(slot) } else { cached.removeAll { $0 == slot } }
      }
      #expect(pool.checkInvariants().isEmpty, "seed \(seed), step \(step)")
      #expect(pool.pinnedCount == references.count && pool.cachedCount == cached.count)
    }
  }

  @Test func aSegmentWithAPinnedSlotStays() {
    var pool = SlotPool()
    pool.addSegment(first: 0, count: 4)
    pool.addSegment(first: 4, count: 4)
    let slot = pool.allocateFree()
    #expect(slot == 0)
    #expect(pool.removeSegment(first: 0, count: 4) == nil)
    #expect(pool.removeSegment(first: 4, count: 4) == [])
    pool.unpin(0)
    #expect(pool.removeSegment(first: 0, count: 4) == [0])
    #expect(pool.slotCount == 0 && pool.checkInvariants().isEmpty)
  }
}
