import Foundation
import KVTestSupport
import KVTiers
import Testing

@Suite struct HostArenaTests {
  /// Slots of several sizes come and go; no two of them ever overlap, and what is pinned keeps its bytes.
  @Test(arguments: UInt64(1)...8)
  func slotsNeverOverlap(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let arena = try HostArena(byteCount: 1 << 20)
    let sizes = [4096, 8192, 12_288, 65_536, 262_144]
    var pinned: [HostSlot: (size: Int, mark: UInt8)] = [:]
    for step in 0..<800 {
      let size = sizes.randomElement(using: &random)!
      if Bool.random(using: &random), let allocation = arena.allocate(size) {
        let slot = allocation.slot
        #expect(pinned[slot] == nil)
        #expect(allocation.reclaimed.allSatisfy { pinned[$0] == nil })
        let mark = UInt8.random(in: 1...255, using: &random)
        memset(arena.memory.pointer(to: slot), Int32(mark), size)
        pinned[slot] = (size, mark)
      } else if let slot = pinned.keys.sorted(by: { $0.rawValue < $1.rawValue })
        .randomElement(using: &random), let (size, mark) = pinned[slot]
      {
        // Equal to itself moved by one, and to the mark at its start: all bytes are the mark.
        let bytes = arena.memory.pointer(to: slot)
        #expect(
          bytes.load(as: UInt8.self) == mark && memcmp(bytes, bytes + 1, size - 1) == 0,
          "seed \(seed), step \(step)"
        )
        if Bool.random(using: &random) { arena.discard(slot) }
        arena.unpin(slot)
        pinned[slot] = nil
      }
      _ = arena.takeReclaimedWithoutGain()
      #expect(arena.checkInvariants().isEmpty, "seed \(seed), step \(step)")
    }
  }

  @Test func fourSlotsAreEnough() throws {
    let arena = try HostArena(byteCount: 4 * 65_536)
    let slots = (0..<4).compactMap { _ in arena.allocate(65_536)?.slot }
    #expect(Set(slots).count == 4)
    #expect(arena.allocate(65_536) == nil)
    arena.unpin(slots[2])
    let again = try #require(arena.allocate(65_536))
    #expect(again.slot == slots[2] && again.reclaimed == [slots[2]])
  }

  @Test func aSizeThatNobodyHoldsGivesWay() throws {
    let arena = try HostArena(byteCount: 1 << 20)
    while let allocation = arena.allocate(4096) {
      arena.unpin(allocation.slot); if allocation.reclaimed != [] { break }
    }
    let large = try #require(arena.allocate(262_144))
    #expect(!large.reclaimed.isEmpty)
  }
}

@Suite struct HostLendingTests {
  /// Slots are lent to several users and come back; the bounds hold, and the counts return to nothing.
  @Test(arguments: UInt64(1)...6)
  func loansAgreeWithAModel(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let arena = try HostArena(byteCount: 1 << 20)
    let sizes = [4096, 12_288, 65_536]
    var slots: [HostSlot: Int] = [:]
    var loans: [HostSlot: Int] = [:]
    var refusalCount = 0
    for step in 0..<600 {
      switch Int.random(in: 0..<4, using: &random) {
      case 0:
        let size = sizes.randomElement(using: &random)!
        if let slot = arena.allocate(size)?.slot { slots[slot] = size }
        _ = arena.takeReclaimedWithoutGain()
      case 1, 2:
        guard
          let slot = slots.keys.sorted(by: { $0.rawValue < $1.rawValue })
            .randomElement(using: &random)
        else { continue }
        arena.pin(slot)
        if arena.lend(slot) {
          loans[slot, default: 0] += 1
        } else {
          refusalCount += 1
          arena.unpin(slot)
        }
      default:
        guard
          let slot = loans.keys.sorted(by: { $0.rawValue < $1.rawValue })
            .randomElement(using: &random), let count = loans[slot]
        else { continue }
        arena.endLoan(slot)
        arena.unpin(slot)
        loans[slot] = count == 1 ? nil : count - 1
      }
      let lentBytes = loans.keys.reduce(0) { $0 + (slots[$1] ?? 0) }
      #expect(arena.lentByteCount == lentBytes, "seed \(seed), step \(step)")
      #expect(lentBytes <= 1 << 19, "seed \(seed), step \(step)")
    }
    #expect(refusalCount > 0, "seed \(seed) never came to the bound")
    for (slot, count) in loans {
      for _ in 0..<count {
        arena.endLoan(slot)
        arena.unpin(slot)
      }
    }
    #expect(arena.lentByteCount == 0)
  }
}
