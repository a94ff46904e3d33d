import Foundation
import KVCore
import KVStore
import Testing

/// The device tier: sequences in slots of a device, between it and the store.
@Suite struct DeviceTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let inlineIdentity = StoreFixture.identity([500, 300])

  private static func prompt(_ number: Int, count: Int = 40) -> [UInt32] {
    (0..<count).map { UInt32(number * 100_000 + $0) }
  }

  /// What a block of these tokens holds: its regions side by side.
  private static func block(_ prefix: some Collection<UInt32>, _ namespace: Namespace) -> [UInt8] {
    namespace.identity.regionByteCounts.enumerated().flatMap { region, count in
      regionBytes([0] + prefix, region: region, count: count)
    }
  }

  /// Stands for the engine: writes the sequence's full blocks from one on.
  private static func compute(_ device: Device, _ sequence: UInt64, from first: Int = 0) throws {
    let tokens = try device.tokens(sequence)
    let table = try device.blockTable(sequence)
    let memory = try #require(device.simulated).bytes
    for block in first..<tokens.count / 4 {
      let slot = UnsafeMutableRawBufferPointer(
        rebasing: memory[
          table[block] * device.slotByteCount..<(table[block] + 1) * device.slotByteCount
        ]
      )
      slot.copyBytes(from: Self.block(tokens[..<((block + 1) * 4)], device.blocksOf))
    }
  }

  private static func isRight(_ device: Device, _ sequence: UInt64) throws -> Bool {
    let tokens = try device.tokens(sequence)
    let memory = try #require(device.simulated).bytes
    return try device.blockTable(sequence).enumerated().allSatisfy { block, slot in
      guard (block + 1) * 4 <= tokens.count else { return true }
      let bytes = UnsafeMutableRawBufferPointer(
        rebasing: memory[slot * device.slotByteCount..<(slot + 1) * device.slotByteCount]
      )
      return bytes.isEqual(to: Self.block(tokens[..<((block + 1) * 4)], device.blocksOf))
    }
  }

  private static func restore(
    _ device: Device,
    _ tokens: [UInt32],
    timeout: UInt64 = 0
  ) throws -> (sequence: UInt64, result: Device.TransferResult) {
    let sequence = try device.createSequence()
    let result = try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try device.restore(sequence, prompt, timeoutNanoseconds: timeout)
    }
    return (sequence, result)
  }

  @Test(arguments: [identity, inlineIdentity])
  func whatTheDeviceOffloadedComesBackToAnotherOne(_ identity: NamespaceIdentity) throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(identity)
    let device = try namespace.attachDevice(slotCount: 64)
    let tokens = Self.prompt(1, count: 42)
    let sequence = try device.createSequence()
    try device.append(sequence, tokens)
    try Self.compute(device, sequence)
    let offloaded = try device.offload(sequence)
    // The rest that fills no block stays on the device.
    #expect(offloaded.doneBlockCount == 10 && offloaded.hostBlockCount == 10)
    #expect(offloaded.end == .done && offloaded.byteCount == 10 * device.slotByteCount)
    #expect(try device.offload(sequence).diskBlockCount == 10)
    #expect(try fixture.store.flush().durableBlockCount == 10)
    // An ordinary restore has the same bytes.
    let (restored, isRight) = try namespace.restore(Self.prompt(1, count: 40))
    #expect(restored.doneBlockCount == 10 && isRight)
    var statistics = try fixture.store.statistics()
    #expect(statistics.deviceSlotsCapacity == 64 && statistics.deviceSlotsUsed == 11)
    #expect(statistics.deviceBytesOut == UInt64(10 * device.slotByteCount))
    #expect(statistics.deviceBytesIn == 0 && statistics.hostBytesLent == 0)
    #expect(device.detach())
    statistics = try fixture.store.statistics()
    #expect(statistics.deviceSlotsCapacity == 0 && statistics.deviceSlotsUsed == 0)

    try fixture.reopen()
    let other = try fixture.store.openNamespace(identity).attachDevice(slotCount: 12)
    let (first, result) = try Self.restore(other, tokens)
    #expect(result.doneBlockCount == 10 && result.deviceBlockCount == 0 && result.end == .done)
    #expect(try Self.isRight(other, first))
    // The same prompt a second time takes no slot and no copy.
    let (second, again) = try Self.restore(other, tokens + Self.prompt(2))
    #expect(again.doneBlockCount == 10 && again.deviceBlockCount == 10 && again.byteCount == 0)
    #expect(again.end == .miss)
    #expect(try other.blockTable(first) == other.blockTable(second))
    statistics = try fixture.store.statistics()
    #expect(statistics.deviceSlotsUsed == 10 && statistics.deviceBlocksShared == 10)
    try other.free(first)
    try other.free(second)
    statistics = try fixture.store.statistics()
    #expect(statistics.deviceSlotsUsed == 0 && statistics.deviceSlotsCached == 10)
    #expect(statistics.hostBytesLent == 0 && other.checkInvariants().isEmpty)
  }

  @Test func aForkCopiesTheLastBlockWhenItGrows() throws {
    let fixture = try StoreFixture()
    let device = try fixture.store.openNamespace(Self.identity).attachDevice(slotCount: 32)
    let trunk = try device.createSequence()
    try device.append(trunk, Self.prompt(1, count: 14))
    let last = try #require(try device.blockTable(trunk).last)
    let memory = try #require(device.simulated).bytes
    let half = UnsafeMutableRawBufferPointer(
      rebasing: memory[last * device.slotByteCount..<(last + 1) * device.slotByteCount]
    )
    half.copyBytes(from: Self.block([7], device.blocksOf))
    var all = [trunk]
    for _ in 0..<3 { all.append(try device.fork(trunk)) }
    for (number, sequence) in all.enumerated() {
      try device.append(sequence, [UInt32(900 + number), 901])
      // What the block held so far came along.
      let slot = try #require(try device.blockTable(sequence).last)
      let bytes = UnsafeMutableRawBufferPointer(
        rebasing: memory[slot * device.slotByteCount..<(slot + 1) * device.slotByteCount]
      )
      #expect(bytes.isEqual(to: Self.block([7], device.blocksOf)))
      try Self.compute(device, sequence, from: 0)
    }
    #expect(try fixture.store.statistics().deviceSlotsUsed == 3 + 4)
    #expect(try fixture.store.statistics().deviceCopiesOnWrite == 3)
    for sequence in all { #expect(try device.offload(sequence).doneBlockCount == 4) }
    try fixture.store.flush()
    // Three blocks once, four ends.
    #expect(try fixture.store.statistics().blocksStored == 7)
    for sequence in all { try device.free(sequence) }
    #expect(try fixture.store.statistics().deviceSlotsUsed == 0)
    #expect(device.checkInvariants().isEmpty)
    let (sequence, result) = try Self.restore(device, Self.prompt(1, count: 14) + [902, 901])
    #expect(result.deviceBlockCount == 4)
    #expect(try Self.isRight(device, sequence))
  }

  @Test func aFullDeviceSaysSo() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(Self.prompt(1))
    try namespace.offload(Self.prompt(2))
    let device = try namespace.attachDevice(slotCount: 10)
    let (first, result) = try Self.restore(device, Self.prompt(1))
    #expect(result.doneBlockCount == 10 && result.hostBlockCount == 10)
    let (second, none) = try Self.restore(device, Self.prompt(2))
    #expect(none.doneBlockCount == 0 && none.end == .full)
    #expect(throws: StoreError.full) { try device.append(second, [1]) }
    try device.free(first)
    // What is cached gives way.
    let (third, taken) = try Self.restore(device, Self.prompt(2))
    #expect(taken.doneBlockCount == 10 && taken.end == .done)
    #expect(try Self.isRight(device, third))
    #expect(throws: StoreError.invalidArgument(.sequence)) { try device.free(first) }
    #expect(throws: StoreError.invalidArgument(.sequenceNotEmpty)) {
      try Prompt.with(Self.prompt(1)) { (prompt) throws(StoreError) in
        _ = try device.restore(third, prompt)
      }
    }
    #expect(try fixture.store.statistics().hostBytesLent == 0)
  }

  @Test func onlyTokensAndFixedRegionsFit() throws {
    let fixture = try StoreFixture()
    let variable = try fixture.store.openNamespace(
      StoreFixture.identity { $0.regionsAreVariable = true }
    )
    #expect(throws: StoreError.self) { try variable.attachDevice(slotCount: 4) }
    let digest = try fixture.store.openNamespace(
      StoreFixture.identity {
        $0.identityMode = .digest
        $0.digestByteCount = 32
      }
    )
    #expect(throws: StoreError.self) { try digest.attachDevice(slotCount: 4) }
    let plain = try fixture.store.openNamespace(Self.identity)
    for count in [0, -1, Int.max] {
      #expect(throws: StoreError.invalidArgument(.deviceSlotCount)) {
        try plain.attachDevice(slotCount: count)
      }
    }
  }

  /// A device that keeps its copies waiting until it is told.
  private final class SlowDevice: DeviceMedium, @unchecked Sendable {
    private let lock = NSLock()
    private var waiting: [(DeviceDirection, [DeviceCopy], DeviceCompletion)] = []
    private let device: SimulatedDevice
    var isSlow = false
    var fails = false

    init(_ device: SimulatedDevice) { self.device = device }

    func copy(
      _ direction: DeviceDirection,
      _ copies: [DeviceCopy],
      _ completion: DeviceCompletion
    ) {
      if fails { return completion.finish(false) }
      guard isSlow else { return device.copy(direction, copies, completion) }
      lock.withLock { waiting.append((direction, copies, completion)) }
    }

    func goOn() {
      for (direction, copies, completion) in lock.withLock({ waiting }) {
        device.copy(direction, copies, completion)
      }
      lock.withLock { waiting = [] }
    }
  }

  /// At its deadline a call gives up; slots and host memory stay as they are until the device is done.
  @Test func aSlowDeviceKeepsItsMemory() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    let memory = try namespace.attachDevice(slotCount: 40)
    let slow = SlowDevice(try #require(memory.simulated))
    let device = try namespace.attachDevice(slotCount: 40, medium: slow)
    let full = try device.createSequence()
    try device.append(full, Self.prompt(1))
    try namespace.offload(Self.prompt(2))

    slow.isSlow = true
    let offloaded = try device.offload(full, timeoutNanoseconds: 1_000_000)
    #expect(offloaded.end == .busy && offloaded.doneBlockCount == 0)
    let (second, restored) = try Self.restore(device, Self.prompt(2), timeout: 1_000_000)
    #expect(restored.end == .busy && restored.doneBlockCount == 0)
    let half = try device.createSequence()
    try device.append(half, [1, 2, 3])
    let fork = try device.fork(half)
    #expect(throws: StoreError.busy) { try device.append(fork, [4], timeoutNanoseconds: 1_000_000) }
    // The call of each is over, its copies are not: nobody gets this memory.
    let slotBytes = UInt64(68 << 10)
    #expect(try fixture.store.statistics().hostBytesLent == 20 * slotBytes)
    try device.free(full)
    #expect(try fixture.store.statistics().deviceSlotsUsed == 10 + 10 + 2)
    #expect(!device.detach())
    try namespace.offload(Self.prompt(3))
    #expect(try namespace.peek(Self.prompt(1)) == 0)

    slow.isSlow = false
    slow.goOn()
    #expect(try fixture.store.statistics().hostBytesLent == 0)
    #expect(try fixture.store.statistics().deviceSlotsUsed == 1)
    #expect(device.checkInvariants().isEmpty)
    #expect(try device.tokens(fork) == [1, 2, 3] && device.tokens(second).isEmpty)
    slow.fails = true
    #expect(throws: StoreError.io(.device, errno: EIO)) { try device.append(fork, [4]) }
    #expect(throws: StoreError.io(.device, errno: EIO)) { try Self.restore(device, Self.prompt(2)) }
    slow.fails = false
    try device.append(fork, [4])
    #expect(try fixture.store.statistics().hostBytesLent == 0)
    #expect(device.checkInvariants().isEmpty && device.detach())
    #expect(throws: StoreError.self) { try device.createSequence() }
  }
}
