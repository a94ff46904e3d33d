import Foundation
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// Restores and offloads that run while their caller does something else.
@Suite struct OperationTests {
  /// Four layers of 128 KiB: each is read apart from the others.
  private static let identity = StoreFixture.identity(Array(repeating: 128 << 10, count: 4))
  private static let prompt = tokens(0..<40)

  private static func storedFixture(_ storage: FaultInjectingStorage) throws -> StoreFixture {
    let fixture = try StoreFixture { $0.storage = storage }
    try fixture.store.openNamespace(identity).offload(prompt)
    try fixture.store.flush()
    try fixture.reopen()
    return fixture
  }

  @Test func whatIsStartedIsDone() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    // Three calls, each the parent of the next: they run in order.
    let offloads = try [(0, 3), (3, 4), (7, 3)].map { first, count in
      let buffers = TransferBuffers(Self.identity, firstBlock: first, blockCount: count)
      buffers.fill(from: Self.prompt)
      return (try buffers.startOffload(Self.prompt, to: namespace), buffers)
    }
    for (operation, buffers) in offloads {
      let result = try #require(try operation.wait(timeoutNanoseconds: 60_000_000_000))
      #expect(result.doneBlockCount == buffers.blockCount && result.firstProblem == nil)
      #expect(try operation.poll() == result)
    }
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(Self.identity)
    let buffers = TransferBuffers(Self.identity, blockCount: 10)
    let restore = try buffers.startRestore(Self.prompt, from: reopened)
    let result = try #require(try restore.wait())
    #expect(result.doneBlockCount == 10 && result.diskBlockCount == 10)
    #expect(buffers.isRight(Self.prompt))
    let missing = TransferBuffers(Self.identity, blockCount: 2)
    let miss = try missing.startRestore(tokens(500..<508), from: reopened)
    #expect(try miss.wait()?.outcomes == [.miss, .miss])
  }

  @Test func aWaitThatEndsFirstLeavesTheOperationRunning() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let buffers = TransferBuffers(Self.identity, blockCount: 10)
    storage.hold(.read)
    let operation = try buffers.startRestore(Self.prompt, from: namespace)
    #expect(storage.waitUntilHeld(1))
    #expect(try operation.poll() == nil)
    #expect(try operation.wait(timeoutNanoseconds: 20_000_000) == nil)
    storage.release()
    #expect(try operation.wait()?.doneBlockCount == 10)
    #expect(buffers.isRight(Self.prompt))
  }

  @Test func aCancelledOperationEndsWhileItsReadsHang() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let buffers = (0..<4).map { _ in TransferBuffers(Self.identity, blockCount: 10) }
    storage.hold(.read)
    // Two run, two are queued behind them.
    let operations = try buffers.map { try $0.startRestore(Self.prompt, from: namespace) }
    #expect(storage.waitUntilHeld(1))
    for operation in operations { operation.cancel() }
    for operation in operations {
      let result = try #require(try operation.wait())
      #expect(result.outcomes == Array(repeating: .busy, count: 10))
    }
    for buffers in buffers { buffers.fill(0x5A) }
    storage.release()
    let (result, isRight) = try namespace.restore(Self.prompt)
    #expect(isRight && result.doneBlockCount == 10)
    for buffers in buffers { #expect(buffers.isFilled(with: 0x5A)) }
  }

  /// An operation for each layer: one layer is whole and right while those behind it still load.
  @Test func aLayerIsThereBeforeTheNextOnes() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = (0..<4).map {
      TransferBuffers(Self.identity, blockCount: 10, regions: $0..<$0 + 1)
    }
    storage.hold(.read)
    let operations = try layers.map { try $0.startRestore(Self.prompt, from: namespace) }
    for layer in 0..<4 {
      while try operations[layer].poll() == nil {
        // One read after the other, as from a slow disk.
        if storage.heldCount > 0 { storage.release(1) }
        _ = try operations[layer].wait(timeoutNanoseconds: 1_000_000)
      }
      #expect(try operations[layer].poll()?.doneBlockCount == 10)
      #expect(layers[layer].isRight(Self.prompt))
      // Two run at a time: the last has not begun when the first is there.
      if layer == 0 { #expect(try operations[3].poll() == nil) }
    }
    storage.release()
  }

  @Test func closeEndsWhatIsRunning() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let buffers = (0..<5).map { _ in TransferBuffers(Self.identity, blockCount: 10) }
    storage.hold(.read)
    let operations = try buffers.map { try $0.startRestore(Self.prompt, from: namespace) }
    #expect(storage.waitUntilHeld(1))
    let closing = Thread { [store = fixture.store] in try? store.close() }
    closing.start()
    // The reads still hang, and all have ended.
    for operation in operations { #expect(try operation.wait()?.firstProblem == .busy) }
    for buffers in buffers { buffers.fill(0x5A) }
    storage.release()
    while !closing.isFinished { usleep(1000) }
    for buffers in buffers { #expect(buffers.isFilled(with: 0x5A)) }
    #expect(throws: StoreError.closed) { try buffers[0].startRestore(Self.prompt, from: namespace) }
    try fixture.reopenClosed()
    let (result, isRight) = try fixture.store.openNamespace(Self.identity).restore(Self.prompt)
    #expect(isRight && result.doneBlockCount == 10)
  }

  @Test func aFullQueueSaysSo() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let buffers = TransferBuffers(Self.identity, blockCount: 1)
    storage.hold(.read)
    var operations: [TransferOperation] = []
    #expect(throws: StoreError.busy) {
      for _ in 0..<2000 {
        operations.append(try buffers.startRestore(Self.prompt, from: namespace))
      }
    }
    #expect(operations.count >= 1024)
    for operation in operations { operation.cancel() }
    for operation in operations { _ = try operation.wait() }
    storage.release()
    // The queue lets go of what was cancelled as its threads come by.
    var last: TransferOperation?
    while last == nil {
      do { last = try buffers.startRestore(Self.prompt, from: namespace) } catch StoreError.busy {
        usleep(1000)
      }
    }
    #expect(try last?.wait()?.doneBlockCount == 1)
  }

  /// An offload that waits for arena room can be cancelled, and its caller's memory is not read after that.
  @Test func aCancelledOffloadStopsWaitingForRoom() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture {
      $0.storage = storage
      $0.hostBytes = 4 << 20
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let buffers = TransferBuffers(Self.identity, blockCount: 10)
    buffers.fill(from: Self.prompt)
    storage.hold(.write)
    let operation = try buffers.startOffload(Self.prompt, to: namespace)
    // Seven blocks fit; the writer hangs with the first of them.
    #expect(storage.waitUntilHeld(1))
    operation.cancel()
    let result = try #require(try operation.wait())
    #expect(result.outcomes.last == .busy && result.doneBlockCount < 10)
    buffers.fill(0)
    storage.release()
    try fixture.store.flush()
    let (restored, isRight) = try namespace.restore(Self.prompt)
    #expect(isRight && restored.doneBlockCount == result.doneBlockCount)
  }
}
