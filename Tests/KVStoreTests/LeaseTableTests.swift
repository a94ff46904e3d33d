import Dispatch
import Glibc
import KVCore
import KVFile
import Synchronization
import Testing

@testable import KVStore

/// Two processes at one entry of the table of leases at the same time; each round with tables of their own, so that both mean entry 0.
@Suite struct LeaseTableTests {
  private static let roundCount = 1000
  /// A machine that is busy has fewer rounds.
  private static let nanosecondsMax: UInt64 = 2_000_000_000
  private static let namespace = NamespaceID(rawValue: 1)

  private static func position(_ run: UInt64, _ position: UInt32) -> BlockPosition {
    BlockPosition(run: RunID(rawValue: run), position: position)
  }

  private enum Word: Int { case id = 0, run = 16, end = 32 }

  /// How often what the other's lease says is not its own.
  ///
  /// The one takes a lease and works on it until it is gone; the other releases it meanwhile and takes one of its own. Both stand for processes: what they share are the words.
  private func wrongCount(
    _ word: Word,
    _ expected: UInt64,
    _ head: @escaping @Sendable () -> LeaseTable.Target,
    _ work: @escaping @Sendable (LeaseTable, _ id: UInt64) -> Void
  ) throws -> Int {
    let memory = try MappedMemory.anonymous(byteCount: LeaseTable.byteCount)
    let given = Atomic<UInt64>(0)
    let taken = Atomic<UInt64>(0)
    let wrongCount = Atomic(0)
    let end = deadline(after: Self.nanosecondsMax)
    DispatchQueue.concurrentPerform(iterations: 2) { index in
      for _ in 0..<Self.roundCount {
        let table = LeaseTable(memory: memory, owner: OwnerID(rawValue: UInt32(index) + 1))
        if index == 0 {
          guard monotonicNanoseconds() < end else {
            return given.store(.max, ordering: .sequentiallyConsistent)
          }
          let id = table.take(Self.namespace, head(), now: 0, duration: 1000) ?? 0
          given.store(id, ordering: .sequentiallyConsistent)
          let offset = Int(id & 0xFFFF) * 48
          var other: UInt64 = 0
          while taken.load(ordering: .sequentiallyConsistent) == 0,
            memory.atomicLoad(at: offset) & ~(1 << 63) == id
          { work(table, id) }
          while other == 0 {
            other = taken.exchange(0, ordering: .sequentiallyConsistent)
            if other == 0 { sched_yield() }
          }
          if memory.atomicLoad(at: Int(other & 0xFFFF) * 48 + word.rawValue) != expected {
            wrongCount.add(1, ordering: .relaxed)
          }
          _ = table.release(other)
        } else {
          var id: UInt64 = 0
          while id == 0 {
            id = given.exchange(0, ordering: .sequentiallyConsistent)
            if id == 0 { sched_yield() }
          }
          guard id != .max else { return }
          _ = table.release(id)
          let head = LeaseTable.Target.published(Self.position(9, 1))
          let own = table.take(Self.namespace, head, now: 0, duration: 10) ?? .max
          taken.store(own, ordering: .sequentiallyConsistent)
        }
      }
    }
    return wrongCount.load(ordering: .relaxed)
  }

  /// Who extends a lease never moves the end of the one that takes its entry.
  @Test func anExtensionMovesItsOwnLease() throws {
    let wrongCount = try wrongCount(.end, 10, { .published(Self.position(5, 1)) }) { table, id in
      _ = table.extend(id, now: 0, duration: 1_000_000)
    }
    #expect(wrongCount == 0)
  }

  /// An entry that a process was killed in the middle of taking is nobody's once its owner is known to be dead, and no lease until then.
  @Test func anEntryOfWhoWasKilledWhileTakingItIsFreeAgain() throws {
    let memory = try MappedMemory.anonymous(byteCount: LeaseTable.byteCount)
    let table = LeaseTable(memory: memory, owner: OwnerID(rawValue: 2))
    let head = LeaseTable.Target.published(Self.position(5, 1))
    // What `take` begins with.
    #expect(memory.atomicCompareExchange(at: 0, expected: 0, desired: 1 << 63 | 1))
    #expect(try #require(table.take(Self.namespace, head, now: 0, duration: 10)) & 0xFFFF == 1)
    #expect(table.deepestPositions(now: 0, deadOwners: []).count == 1)
    let dead: Set<OwnerID> = [OwnerID(rawValue: 1)]
    #expect(table.activeCount(now: 0, deadOwners: dead) == 1)
    #expect(table.release(deadOwners: dead) == 1)
    let next = LeaseTable(memory: memory, owner: OwnerID(rawValue: 3))
    #expect(try #require(next.take(Self.namespace, head, now: 0, duration: 10)) & 0xFFFF == 0)
  }

  /// Who says where a pending block came to lie never says it of a lease that takes the entry.
  @Test func aPlaceIsWrittenForItsOwnLease() throws {
    let wrongCount = try wrongCount(.run, 9, { .pending(ticket: 7) }) { table, _ in
      table.place([7: Self.position(5, 3)])
    }
    #expect(wrongCount == 0)
  }
}
