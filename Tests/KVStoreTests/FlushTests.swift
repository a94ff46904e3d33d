import Foundation
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// Flushes do the commit themselves, or wait for who does it.
@Suite struct FlushTests {
  private static let identity = StoreFixture.identity([4_000])

  @Test(.timeLimit(.minutes(5)))
  func flushesOfManyHandlesTellOfTheirOwnBlocks() throws {
    let fixture = try StoreFixture()
    let handles = try (0..<6).map { _ in try Store.open(fixture.configuration) }
    let flushCount = 40
    DispatchQueue.concurrentPerform(iterations: handles.count) { index in
      do {
        let namespace = try handles[index].openNamespace(Self.identity)
        for number in 0..<flushCount {
          let first = 1_000_000 * (index + 1) + 8 * number
          try namespace.offload(tokens(first..<first + 8))
          // Those with a deadline wait, the others do it.
          let timeout: UInt64 = (index + number) % 3 == 0 ? 300_000_000_000 : 0
          let result = try handles[index].flush(timeoutNanoseconds: timeout)
          #expect(result.durableBlockCount == 2)
        }
      } catch {
        Issue.record(error)
      }
    }
    for handle in handles { try handle.close() }
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(Self.identity)
    for index in handles.indices {
      for number in 0..<flushCount {
        let first = 1_000_000 * (index + 1) + 8 * number
        #expect(try namespace.peek(tokens(first..<first + 8)) == 2)
      }
    }
  }

  @Test(.timeLimit(.minutes(5)))
  func whoeverHangsInAFlushKeepsNobodyWithADeadline() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture { $0.storage = storage }
    let other = try Store.open(fixture.configuration)
    defer { try? other.close() }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let others = try other.openNamespace(StoreFixture.identity())
    storage.hold(.sync)
    try namespace.offload(tokens(0..<40))
    let flushing = Thread { [store = fixture.store] in
      #expect((try? store.flush().durableBlockCount) == 10)
    }
    flushing.start()
    #expect(storage.waitUntilHeld(1))
    // Offloads and look-ups go on, and a flush ends at its deadline.
    try others.offload(tokens(100..<140))
    #expect(try others.peek(tokens(100..<140)) == 10)
    #expect(throws: StoreError.busy) { try other.flush(timeoutNanoseconds: 200_000_000) }
    storage.release()
    #expect(try other.flush(timeoutNanoseconds: 300_000_000_000).durableBlockCount == 10)
    while !flushing.isFinished { usleep(10_000) }
  }
}
