import Dispatch
import KVCore
import KVFile
import Testing

@testable import KVStore

/// Two processes at one entry of the table of leases at the same time; each round with tables of their own, so that both mean entry 0.
@Suite struct LeaseTableTests {
  private static let roundCount = 20_000

  /// Crosses into `concurrentPerform`: what races here races between processes, through atomic words.
  private struct Pair: @unchecked Sendable {
    let one: LeaseTable
    let other: LeaseTable

    init(_ memory: MappedMemory) {
      one = LeaseTable(memory: memory, owner: OwnerID(rawValue: 1))
      other = LeaseTable(memory: memory, owner: OwnerID(rawValue: 2))
    }

    /// `first` by the one, and by the other a release of this lease and a new one; where that one's words begin.
    func race(
      _ id: UInt64,
      _ namespace: NamespaceID,
      duration: UInt64,
      _ first: @Sendable (LeaseTable) -> Void
    ) -> (id: UInt64, offset: Int)? {
      let taken = Monitor<UInt64?>(nil)
      DispatchQueue.concurrentPerform(iterations: 2) { index in
        guard index > 0 else { return first(one) }
        _ = other.release(id)
        let head = LeaseTable.Head.published(LeaseTableTests.position(9, 1))
        let new = other.take(namespace, head, now: 0, duration: duration)
        taken.withLock { $0 = new }
      }
      return taken.withLock { $0 }.map { ($0, Int($0 & 0xFFFF) * 48) }
    }
  }

  private static func position(_ run: UInt64, _ position: UInt32) -> BlockPosition {
    BlockPosition(run: RunID(rawValue: run), position: position)
  }

  private let namespace = NamespaceID(rawValue: 1)

  /// Who extends a lease never moves the end of the one that takes its entry.
  @Test func anExtensionMovesItsOwnLease() throws {
    let memory = try MappedMemory.anonymous(byteCount: LeaseTable.byteCount)
    var wrongCount = 0
    for _ in 0..<Self.roundCount {
      let pair = Pair(memory)
      let id = try #require(
        pair.one.take(namespace, .published(Self.position(5, 1)), now: 0, duration: 1000)
      )
      let new = try #require(
        pair.race(id, namespace, duration: 10) { _ = $0.extend(id, now: 0, duration: 1_000_000) }
      )
      if memory.atomicLoad(at: new.offset + 32) != 10 { wrongCount += 1 }
      _ = pair.other.release(new.id)
    }
    #expect(wrongCount == 0)
  }

  /// Who says where a pending block came to lie never says it of a lease that takes the entry.
  @Test func aPlaceIsWrittenForItsOwnLease() throws {
    let memory = try MappedMemory.anonymous(byteCount: LeaseTable.byteCount)
    var wrongCount = 0
    for _ in 0..<Self.roundCount {
      let pair = Pair(memory)
      let id = try #require(pair.one.take(namespace, .pending(ticket: 7), now: 0, duration: 1000))
      let new = try #require(
        pair.race(id, namespace, duration: 1000) { $0.place([7: Self.position(5, 3)]) }
      )
      if memory.atomicLoad(at: new.offset + 16) != 9 { wrongCount += 1 }
      _ = pair.other.release(new.id)
    }
    #expect(wrongCount == 0)
  }
}
