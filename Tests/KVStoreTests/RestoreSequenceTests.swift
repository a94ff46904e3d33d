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

  private static func storedFixture(_ storage: FaultInjectingStorage) throws -> StoreFixture {
    let fixture = try StoreFixture { $0.storage = storage }
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
