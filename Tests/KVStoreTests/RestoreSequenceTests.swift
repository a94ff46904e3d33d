import Foundation
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// Restores that were started layer by layer, and are read together.
@Suite struct RestoreSequenceTests {
  private static let layerCount = 16
  private static let layerByteCount = 32 << 10
  private static let blockCount = 10
  private static let identity = StoreFixture.identity(
    Array(repeating: layerByteCount, count: layerCount)
  )
  private static let prompt = tokens(0..<40)

  /// In 16 MiB of RAM there is room for copies of 7 of the blocks, in 64 for all.
  private static func storedFixture(
    _ storage: FaultInjectingStorage,
    hostBytes: Int = 16 << 20
  ) throws -> StoreFixture {
    let fixture = try StoreFixture {
      $0.storage = storage
      $0.hostBytes = hostBytes
    }
    let namespace = try fixture.store.openNamespace(identity)
    try namespace.offload(prompt)
    try namespace.offload(tokens(1000..<1040))
    try fixture.store.flush()
    try fixture.reopen()
    return fixture
  }

  /// Buffers for each of these parts of the regions.
  private static func buffers(_ parts: [Range<Int>]) -> [TransferBuffers] {
    parts.map { TransferBuffers(identity, blockCount: blockCount, regions: $0) }
  }

  private static let layers = (0..<layerCount).map { $0..<$0 + 1 }

  /// Starts all while no read gets through, so that they wait for each other.
  private static func started(
    _ buffers: [TransferBuffers],
    _ namespace: Namespace,
    _ storage: FaultInjectingStorage
  ) throws -> [TransferOperation] {
    storage.hold(.read)
    return try buffers.map { try $0.startRestore(prompt, from: namespace) }
  }

  /// A slot is read in a few pieces, not in one for each layer, and hardly a byte of it twice.
  @Test func layersThatWaitAreReadTogether() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = Self.buffers(Self.layers)
    let (count, byteCount) = (storage.count(of: .read), storage.readByteCount)
    let operations = try Self.started(layers, namespace, storage)
    storage.release()
    for (operation, layer) in zip(operations, layers) {
      let result = try #require(try operation.wait())
      #expect(result.doneBlockCount == Self.blockCount && result.firstProblem == nil)
      #expect(result.byteCount == Self.blockCount * Self.layerByteCount)
      #expect(layer.isRight(Self.prompt))
    }
    // The first layer, 4, 8 and 3 of them; each layer's own reads would be 29 a block.
    #expect(storage.count(of: .read) - count <= 8 * Self.blockCount)
    let payload = Self.blockCount * Self.layerCount * Self.layerByteCount
    #expect(storage.readByteCount - byteCount <= payload * 5 / 4)
  }

  /// Every byte of a slot comes once, in as few reads as there are groups, and the blocks are in RAM afterwards.
  @Test func whatCameLayerByLayerStaysInMemory() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage, hostBytes: 64 << 20)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = Self.buffers(Self.layers)
    let (count, byteCount) = (storage.count(of: .read), storage.readByteCount)
    let operations = try Self.started(layers, namespace, storage)
    storage.release()
    for (operation, layer) in zip(operations, layers) {
      #expect(try operation.wait()?.doneBlockCount == Self.blockCount)
      #expect(layer.isRight(Self.prompt))
    }
    #expect(storage.count(of: .read) - count <= 4 * Self.blockCount)
    // The first layer, which came alone, again.
    let slot = 4096 + (Self.layerCount + 1) * Self.layerByteCount + 4096
    #expect(storage.readByteCount - byteCount <= Self.blockCount * slot)
    // They are when the sequence has ended, shortly after its last operation. One layer is too little to stay itself.
    let one = try #require(Self.buffers([3..<4]).first)
    let limit = monotonicNanoseconds() + 60_000_000_000
    while try one.restore(Self.prompt, from: namespace).hostBlockCount < Self.blockCount,
      monotonicNanoseconds() < limit
    {
      usleep(1000)
    }
    let whole = TransferBuffers(Self.identity, blockCount: Self.blockCount)
    #expect(try whole.restore(Self.prompt, from: namespace).hostBlockCount == Self.blockCount)
    #expect(whole.isRight(Self.prompt))
  }

  /// Copies that are not whole at the end give their room back.
  @Test func halfOfTheLayersLeaveNothingBehind() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    for _ in 0..<8 {
      let layers = Self.buffers(Array(Self.layers[..<8]))
      let operations = try Self.started(layers, namespace, storage)
      storage.release()
      for operation in operations { _ = try operation.wait() }
    }
    let limit = monotonicNanoseconds() + 60_000_000_000
    while try fixture.store.statistics().hostBytesUsed > 0, monotonicNanoseconds() < limit {
      usleep(1000)
    }
    #expect(try fixture.store.statistics().hostBytesUsed == 0)
  }

  /// Blocks that leave while their layers come, and whose slots others get: never bytes of both.
  @Test func slotsThatGoToOthersInBetween() async throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage, hostBytes: 64 << 20)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = Self.buffers(Self.layers)
    let operations = try Self.started(layers, namespace, storage)
    while try operations[0].poll() == nil {
      if storage.heldCount > 0 { storage.release(1) }
      _ = try operations[0].wait(timeoutNanoseconds: 1_000_000)
    }
    // Of the second group a few reads are over, the others held; they go on one by one, as do those of who removes.
    #expect(storage.waitUntilHeld(1))
    storage.release(2)
    let removal = Task.detached {
      let count = try namespace.forget(Array(Self.prompt[..<4]))
      try namespace.offload(tokens(5000..<5080))
      try fixture.store.flush()
      return count
    }
    for operation in operations {
      while try operation.wait(timeoutNanoseconds: 1_000_000) == nil {
        if storage.heldCount > 0 { storage.release(1) }
      }
    }
    storage.release()
    #expect(try await removal.value == Self.blockCount)
    for (operation, layer) in zip(operations, layers) {
      let result = try #require(try operation.wait())
      #expect(layer.isRight(Self.prompt, blockCount: result.doneBlockCount))
    }
    let others = TransferBuffers(Self.identity, blockCount: 20)
    #expect(try others.restore(tokens(5000..<5080), from: namespace).doneBlockCount == 20)
    #expect(others.isRight(tokens(5000..<5080)))
    #expect(try namespace.peek(Self.prompt) == 0)
  }

  /// The others of a group do not end with one that is cancelled, and its memory is left alone from then on.
  @Test func oneIsCancelledAndTheOthersAreNot() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = Self.buffers(Self.layers)
    let operations = try Self.started(layers, namespace, storage)
    while try operations[0].poll() == nil {
      // One read after the other, as from a slow disk.
      if storage.heldCount > 0 { storage.release(1) }
      _ = try operations[0].wait(timeoutNanoseconds: 1_000_000)
    }
    // The next four are under way, with their reads held.
    #expect(storage.waitUntilHeld(1))
    operations[2].cancel()
    #expect(try operations[2].wait()?.outcomes == Array(repeating: .busy, count: Self.blockCount))
    layers[2].fill(0x5A)
    storage.release()
    for index in Self.layers.indices where index != 2 {
      #expect(try operations[index].wait()?.doneBlockCount == Self.blockCount)
      #expect(layers[index].isRight(Self.prompt))
    }
    #expect(layers[2].isFilled(with: 0x5A))
  }

  @Test func eachHasItsOwnDeadline() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = Self.buffers(Self.layers)
    storage.hold(.read)
    let operations = try layers.enumerated().map { index, layer in
      try layer.startRestore(
        Self.prompt,
        from: namespace,
        timeoutNanoseconds: index == 3 ? 30_000_000 : 300_000_000_000
      )
    }
    usleep(50_000)
    storage.release()
    for (index, layer) in layers.enumerated() {
      let done = try #require(try operations[index].wait()?.doneBlockCount)
      #expect(index == 3 ? done < Self.blockCount : done == Self.blockCount)
      if index != 3 { #expect(layer.isRight(Self.prompt)) }
    }
  }

  /// Memory that is too small for one layer is that layer's trouble.
  @Test func oneThatDoesNotFitLeavesTheOthersAlone() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = Self.buffers(Self.layers)
    layers[5].setCapacity(100)
    let operations = try Self.started(layers, namespace, storage)
    storage.release()
    for (index, layer) in layers.enumerated() where index != 5 {
      #expect(try operations[index].wait()?.doneBlockCount == Self.blockCount)
      #expect(layer.isRight(Self.prompt))
    }
    #expect(try operations[5].wait()?.firstProblem == .bufferTooSmall)
  }

  /// A damaged region of one block is never handed over, and ends the prefix there for whoever needs it.
  @Test func damageInOneLayerIsAMiss() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let slotByteCount = 4096 + Self.layerCount * Self.layerByteCount
    try fixture.whileClosed {
      let slots = fixture.folder.appending(path: "store/slots")
      let name = try #require(try FileManager.default.contentsOfDirectory(atPath: slots.path).first)
      let file = try FileHandle(forUpdating: slots.appending(path: name))
      defer { try? file.close() }
      // Of the block in the fifth slot, in the sixth layer.
      let offset = UInt64(4 * slotByteCount + 4096 + 5 * Self.layerByteCount + 77)
      try file.seek(toOffset: offset)
      let byte = try #require(try file.read(upToCount: 1)?.first)
      try file.seek(toOffset: offset)
      try file.write(contentsOf: Data([byte ^ 0x10]))
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let layers = Self.buffers(Self.layers)
    let operations = try Self.started(layers, namespace, storage)
    storage.release()
    var doneCounts: [Int] = []
    for (operation, layer) in zip(operations, layers) {
      let done = try #require(try operation.wait()?.doneBlockCount)
      #expect(layer.isRight(Self.prompt, blockCount: done))
      doneCounts.append(done)
    }
    #expect(doneCounts.first == Self.blockCount && doneCounts.last == 4)
    #expect(doneCounts == doneCounts.sorted(by: >))
    #expect(try fixture.store.statistics().missesCorrupt == 1)
  }

  /// Layers of two prompts in turn, in any pieces, some of them again or given up: each ends with its own bytes.
  @Test(arguments: 0..<20) func anyOrderEndsRight(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let prompts = [Self.prompt, tokens(1000..<1040)]
    var next = [0, 0]
    var started: [(TransferOperation, TransferBuffers, Int, isCancelled: Bool)] = []
    if Bool.random(using: &random) { storage.hold(.read) }
    while next.contains(where: { $0 < Self.layerCount }) {
      let which = Int.random(in: 0...1, using: &random)
      let first =
        Int.random(in: 0..<8, using: &random) == 0
        ? Int.random(in: 0..<Self.layerCount, using: &random) : next[which]
      guard first < Self.layerCount else { continue }
      let end = min(first + Int.random(in: 1...3, using: &random), Self.layerCount)
      let buffers = TransferBuffers(
        Self.identity,
        blockCount: Self.blockCount,
        regions: first..<end
      )
      let operation = try buffers.startRestore(prompts[which], from: namespace)
      let isCancelled = Int.random(in: 0..<10, using: &random) == 0
      if isCancelled { operation.cancel() }
      started.append((operation, buffers, which, isCancelled))
      next[which] = end
      if Int.random(in: 0..<12, using: &random) == 0 { storage.release() }
    }
    storage.release()
    for (operation, buffers, which, isCancelled) in started {
      let result = try #require(try operation.wait())
      #expect(isCancelled || result.doneBlockCount == Self.blockCount)
      #expect(buffers.isRight(prompts[which], blockCount: result.doneBlockCount))
    }
  }
}
