import Foundation
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// Blocks lent where they lie, and blocks brought there ahead of time.
@Suite struct ViewTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let inlineIdentity = StoreFixture.identity([1000, 24])
  private static let prompt = tokens(0..<40)

  private static func isRight(
    _ view: BlockView,
    _ identity: NamespaceIdentity,
    _ prompt: [UInt32],
    _ blocks: Range<Int>
  ) -> Bool {
    blocks.allSatisfy { block in
      identity.regionByteCounts.indices.allSatisfy { region in
        let prefix = [0] + prompt[..<((block + 1) * identity.tokensPerBlock)]
        let wanted = regionBytes(
          prefix,
          region: region,
          count: identity.regionByteCounts[region]
        )
        return view.withBytes(block: block, region: region) {
          UnsafeMutableRawBufferPointer(mutating: $0).isEqual(to: wanted)
        } ?? false
      }
    }
  }

  @Test(arguments: [identity, inlineIdentity])
  func aViewLendsWhatWasStored(_ identity: NamespaceIdentity) throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(identity)
    try namespace.offload(Self.prompt)
    let pending = try namespace.view(Self.prompt)
    #expect(pending.result.doneBlockCount == 10 && pending.result.hostBlockCount == 10)
    #expect(Self.isRight(pending, identity, Self.prompt, 0..<10))
    pending.release()
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(identity)
    let view = try reopened.view(Self.prompt, from: 2)
    #expect(view.result.doneBlockCount == 8 && view.result.diskBlockCount == 8)
    #expect(Self.isRight(view, identity, Self.prompt, 2..<10))
    #expect(view.withBytes(block: 1, region: 0) { _ in true } == nil)
    #expect(view.withBytes(block: 10, region: 0) { _ in true } == nil)
    #expect(try fixture.store.statistics().hostBytesLent > 0)
    #expect(try reopened.match(Self.prompt, .peek).hostBlockCount == 8)
    view.release()
    view.release()
    #expect(view.withBytes(block: 2, region: 0) { _ in true } == nil)
    #expect(try fixture.store.statistics().hostBytesLent == 0)
    // What was lent stays promoted, and is good for restores.
    let (result, isRight) = try reopened.restore(Self.prompt)
    #expect(isRight && result.hostBlockCount == 8 && result.diskBlockCount == 2)
    #expect(try reopened.view(tokens(700..<708)).result.outcomes == [.miss, .miss])
  }

  /// Views hold half of the arena at most, so that offloads and restores go on beside them.
  @Test func viewsLeaveRoomForOthers() throws {
    let fixture = try StoreFixture { $0.hostBytes = 1 << 20 }
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(Self.prompt)
    try fixture.store.flush()
    let view = try namespace.view(Self.prompt)
    // 1 MiB holds fifteen slots of 68 KiB, half of it seven.
    #expect(view.result.doneBlockCount == 7 && view.result.firstProblem == .full)
    let second = try namespace.view(tokens(0..<4))
    #expect(second.result.doneBlockCount == 1, "a block that is lent already costs nothing")
    second.release()
    let other = tokens(1000..<1120)
    #expect(try namespace.offload(other).doneBlockCount == 30)
    try fixture.store.flush()
    let (result, isRight) = try namespace.restore(other)
    #expect(isRight && result.doneBlockCount == 30)
    #expect(Self.isRight(view, Self.identity, Self.prompt, 0..<7))
    // Another slot size finds room as well.
    let large = StoreFixture.identity([200_000])
    let largeNamespace = try fixture.store.openNamespace(large)
    #expect(try largeNamespace.offload(Self.prompt).doneBlockCount == 10)
    try fixture.store.flush()
    view.release()
    let again = try namespace.view(other)
    #expect(again.result.doneBlockCount == 7)
    again.release()
  }

  @Test func aBlockThatIsForgottenStaysUntilTheRelease() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(Self.prompt)
    try fixture.store.flush()
    let view = try namespace.view(Self.prompt)
    #expect(try namespace.forget([]) == 10)
    try namespace.offload(tokens(2000..<2600))
    try fixture.store.flush()
    #expect(Self.isRight(view, Self.identity, Self.prompt, 0..<10))
    view.release()
    #expect(try namespace.view(Self.prompt).result.doneBlockCount == 0)
  }

  @Test func aDamagedBlockIsNotLent() throws {
    let fixture = try StoreFixture()
    try fixture.store.openNamespace(Self.identity).offload(Self.prompt)
    try fixture.whileClosed {
      let folder = fixture.configuration.path + "/slots/"
      let name = try #require(try FileManager.default.contentsOfDirectory(atPath: folder).first)
      let file = try #require(FileHandle(forUpdatingAtPath: folder + name))
      // The last byte of the fourth block's second region.
      let offset = UInt64(3 * 69_632 + 4096 + 63_999)
      try file.seek(toOffset: offset)
      let byte = try #require(try file.read(upToCount: 1)?.first)
      try file.seek(toOffset: offset)
      try file.write(contentsOf: Data([byte ^ 0x10]))
      try file.synchronize()
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let view = try namespace.view(Self.prompt)
    #expect(view.result.doneBlockCount == 3 && view.result.outcomes[3] == .miss)
    #expect(Self.isRight(view, Self.identity, Self.prompt, 0..<3))
    #expect(try fixture.store.statistics().missesCorrupt == 1)
    view.release()
    #expect(try fixture.store.statistics().hostBytesLent == 0)
  }

  @Test func aViewEndsAtItsDeadlineAndWithItsStore() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture {
      $0.storage = storage
      $0.hostBytes = 1 << 20
    }
    try fixture.store.openNamespace(Self.identity).offload(Self.prompt)
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(Self.identity)
    storage.hold(.read)
    let held = try namespace.view(Self.prompt, timeoutNanoseconds: 300_000_000)
    #expect(held.result.doneBlockCount == 0 && held.result.outcomes[0] == .busy)
    #expect(try fixture.store.statistics().hostBytesLent == 0)
    storage.release()
    let view = try namespace.view(Array(Self.prompt[..<20]))
    #expect(view.result.doneBlockCount == 5)
    try fixture.store.close()
    #expect(view.withBytes(block: 0, region: 0) { _ in true } == nil)
    view.release()
    try fixture.reopenClosed()
  }

  // MARK: Prefetch

  @Test(arguments: [identity, inlineIdentity])
  func aPrefetchBringsAPrefixIntoRAM(_ identity: NamespaceIdentity) throws {
    let fixture = try StoreFixture()
    try fixture.store.openNamespace(identity).offload(Self.prompt)
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(identity)
    // What comes after the stored prefix is no matter.
    let (stored, started) = try namespace.prefetch(Self.prompt + tokens(900..<907))
    #expect(stored == 10 && started == 10)
    try waitUntil { try fixture.store.statistics().blocksPrefetched >= 10 }
    let (result, isRight) = try namespace.restore(Self.prompt)
    #expect(isRight && result.hostBlockCount == 10)
    #expect(try fixture.store.statistics().blocksPrefetched == 10)
    #expect(try namespace.prefetch(Self.prompt) == (10, 0))
    #expect(try namespace.prefetch(tokens(700..<708)) == (0, 0))
  }

  /// A prompt larger than the arena does not push itself out of it, and a disk that hangs holds up nobody else.
  @Test func aPrefetchIsBoundedAndEndsWithTheStore() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture {
      $0.storage = storage
      $0.hostBytes = 1 << 20
    }
    let long = tokens(0..<120)
    try fixture.store.openNamespace(Self.identity).offload(long)
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(Self.identity)
    let (stored, started) = try namespace.prefetch(long)
    #expect(stored == 30 && started == 7)
    try waitUntil { try fixture.store.statistics().blocksPrefetched >= 7 }
    #expect(try namespace.match(long, .peek).hostBlockCount == 7)
    storage.hold(.read)
    let other = tokens(5000..<5040)
    try namespace.offload(other)
    // Not one of its blocks is in RAM once others have taken their place.
    try fixture.store.flush()
    try namespace.offload(tokens(6000..<6120))
    try fixture.store.flush()
    #expect(try namespace.prefetch(other).started > 0)
    #expect(storage.waitUntilHeld(1))
    #expect(try namespace.offload(tokens(7000..<7040)).doneBlockCount == 10)
    let closing = Thread { [store = fixture.store] in try? store.close() }
    closing.start()
    usleep(50_000)
    storage.release()
    while !closing.isFinished { usleep(1000) }
    try fixture.reopenClosed()
    let (result, isRight) = try fixture.store.openNamespace(Self.identity).restore(long)
    #expect(isRight && result.doneBlockCount == 30)
  }
}

/// Waits for something that another thread does; a failure when it does not come in half a minute.
private func waitUntil(_ isTrue: () throws -> Bool) throws {
  for _ in 0..<30_000 {
    if try isTrue() { return }
    usleep(1000)
  }
  Issue.record("did not happen in half a minute")
}

extension Namespace {
  func view(
    _ tokens: [UInt32],
    from first: Int = 0,
    timeoutNanoseconds: UInt64 = 0
  ) throws -> BlockView {
    let transfer = Transfer(
      firstBlock: first,
      timeoutNanoseconds: timeoutNanoseconds,
      spans: UnsafeMutableBufferPointer(start: nil, count: 0)
    )
    return try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try self.view(prompt, transfer)
    }
  }

  func prefetch(_ tokens: [UInt32]) throws -> (stored: Int, started: Int) {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.prefetch(prompt) }
  }

  func reserve(
    _ tokens: [UInt32],
    from first: Int = 0,
    durationNanoseconds: UInt64 = 0,
    timeoutNanoseconds: UInt64 = 0
  ) throws -> OffloadReservation {
    let transfer = Transfer(
      firstBlock: first,
      timeoutNanoseconds: timeoutNanoseconds,
      spans: UnsafeMutableBufferPointer(start: nil, count: 0)
    )
    return try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try self.reserve(prompt, transfer, durationNanoseconds: durationNanoseconds)
    }
  }
}
