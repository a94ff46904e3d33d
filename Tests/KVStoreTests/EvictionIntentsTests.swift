import KVCatalog
import KVCore
import KVFile
import Testing

@testable import KVStore

/// What one process announces that it is about to remove, as another one sees it.
@Suite struct EvictionIntentsTests {
  private static func range(_ run: UInt64, from position: UInt32) -> RemovedRange {
    RemovedRange(
      namespace: NamespaceID(rawValue: 1),
      run: RunID(rawValue: run),
      firstPosition: position,
      blockCount: 1
    )
  }

  private static func position(_ run: UInt64, _ position: UInt32) -> BlockPosition {
    BlockPosition(run: RunID(rawValue: run), position: position)
  }

  private let evictor: EvictionIntents
  private let other: EvictionIntents

  init() throws {
    let memory = try MappedMemory.anonymous(byteCount: EvictionIntents.byteCount)
    evictor = EvictionIntents(memory: memory, start: 0, owner: OwnerID(rawValue: 1))
    other = EvictionIntents(memory: memory, start: 0, owner: OwnerID(rawValue: 2))
  }

  @Test func fewAreListed() {
    evictor.announce((1...4096).map { Self.range($0, from: 3) })
    for run in 1...4096 as ClosedRange<UInt64> {
      #expect(other.covers(Self.position(run, 3)) && !other.covers(Self.position(run, 2)))
    }
    #expect(!other.covers(Self.position(4097, 3)))
    evictor.withdraw()
    #expect(!other.covers(Self.position(1, 3)))
  }

  /// Each of them is covered, and next to nothing else; before, everything was.
  @Test(arguments: [4097, 10_000, 50_000] as [UInt64])
  func manyHideHardlyAnythingElse(_ count: UInt64) {
    evictor.announce((1...count).map { Self.range($0 * 2, from: 0) })
    #expect((1...count).allSatisfy { other.covers(Self.position($0 * 2, 7)) })
    let others = 100_000 as UInt64
    let falseCount = (1...others).reduce(0) {
      $0 + (other.covers(Self.position($1 * 2 + 1, 0)) ? 1 : 0)
    }
    // (1 − e^(−3n/m))³ of them are expected.
    #expect(falseCount <= (count > 10_000 ? 3000 : 60))
    #expect(!evictor.covers(Self.position(2, 0)), "its own announcement means nothing to it")
    evictor.withdraw()
    #expect(!other.covers(Self.position(2, 0)))
    // What comes next does not see the old filter.
    evictor.announce([Self.range(9, from: 0)])
    #expect(other.covers(Self.position(9, 0)) && !other.covers(Self.position(2, 0)))
  }
}
