import Foundation
import KVAdmin
import KVCore
import KVRemote
import KVStore
import KVTestSupport
import Testing

/// State beside blocks goes to the remote tier and comes from there with the prefix that it stands behind.
@Suite struct RemoteSectionTests {
  private let identity = StoreFixture.identity([2000, 1000])
  private let prompt = tokens(0..<64)
  static let names = ["recurrent", "window"]

  private static func open(
    _ machine: StoreFixture,
    _ identity: NamespaceIdentity
  ) throws -> (Namespace, [Namespace]) {
    let namespace = try machine.store.openNamespace(identity)
    let sections = try names.map {
      try namespace.openSection($0, byteCountMax: SectionTests.byteCountMax)
    }
    return (namespace, sections)
  }

  private static func match(
    _ namespace: Namespace,
    _ sections: [Namespace],
    _ prompt: [UInt32],
    _ options: MatchOptions = .remote
  ) throws -> MatchResult {
    for _ in 0..<60_000 {
      let result = try Prompt.with(prompt) { (prompt) throws(StoreError) in
        try namespace.match(prompt, with: sections, options: options)
      }
      guard result[0].isBeingFetched else { return result[0] }
      usleep(1000)
    }
    Issue.record("a fetch did not end")
    return MatchResult()
  }

  /// Stores the prompt with states behind some of its blocks on the first machine.
  private func write(
    _ machines: RemoteFixture,
    _ identity: NamespaceIdentity,
    statesAt places: [Int]
  ) throws {
    let (namespace, sections) = try Self.open(machines.a, identity)
    try namespace.offload(prompt)
    for place in places {
      for (index, section) in sections.enumerated() {
        try SectionTests.offload(section, prompt, blockCount: place, seed: UInt32(index))
      }
    }
    try machines.a.store.flush()
    machines.a.store.waitForRemote()
  }

  private func expectState(_ sections: [Namespace], at place: Int) throws {
    for (index, section) in sections.enumerated() {
      let right = regionBytes(
        [UInt32(index), UInt32(place)],
        region: 0,
        count: SectionTests.byteCountMax
      )
      #expect(try SectionTests.restore(section, prompt, blockCount: place) == right)
    }
  }

  /// The longest usable prefix is found, wherever it ends: at the end of a chunk or within one.
  @Test(arguments: [[16], [8], [13], [3, 11], [2, 15]], [false, true])
  func anotherMachineFindsTheLongestUsablePrefix(places: [Int], isSalted: Bool) throws {
    let machines = try RemoteFixture { configuration, _ in
      configuration.remote.blocksPerChunk = 8
      if isSalted { configuration.remote.key = RemoteFixture.key }
    }
    let identity = StoreFixture.identity([2000, 1000]) { if isSalted { $0.salt = [7, 7] } }
    try write(machines, identity, statesAt: places)
    let (namespace, sections) = try Self.open(machines.b, identity)
    let best = try #require(places.last)
    let result = try Self.match(namespace, sections, prompt + [9, 9, 9, 9])
    #expect(result.blockCount == best)
    let restored = try namespace.restore(Array(prompt[..<(4 * best)]))
    #expect(restored.isRight)
    #expect(restored.result.doneBlockCount == best)
    try expectState(sections, at: best)
    // They are this machine's own from then on.
    try machines.b.store.flush()
    machines.remote.fault = .dead
    try machines.b.reopen()
    let (again, others) = try Self.open(machines.b, identity)
    #expect(try Self.match(again, others, prompt, .peek).blockCount == best)
    try expectState(others, at: best)
    #expect(try machines.b.store.verify().findings == [])
  }

  /// With windows as groups of regions, and states at some ends of blocks.
  @Test func windowsAndStatesComeTogether() throws {
    let machines = try RemoteFixture()
    let identity = StoreFixture.identity([2000, 1000]) {
      $0.groups = [
        KVCacheGroup(regions: 0..<1), KVCacheGroup(regions: 1..<2, windowTokenCount: 8),
      ]
    }
    try write(machines, identity, statesAt: [16])
    let (namespace, sections) = try Self.open(machines.b, identity)
    #expect(try Self.match(namespace, sections, prompt).blockCount == 16)
    // Of the blocks before these the window's regions are not needed.
    let restored = try namespace.restore(prompt, from: 14)
    #expect(restored.isRight)
    #expect(restored.result.doneBlockCount == 2)
    try expectState(sections, at: 16)
  }

  @Test func leavesATokenAndAsksOnlyWhereItMay() throws {
    let machines = try RemoteFixture()
    try write(machines, identity, statesAt: [12, 16])
    let (namespace, sections) = try Self.open(machines.b, identity)
    let before = machines.remote.counts
    #expect(try Self.match(namespace, sections, prompt, []).blockCount == 0)
    #expect(machines.remote.counts == before)
    let result = try Self.match(namespace, sections, prompt, [.remote, .leaveOneToken])
    #expect(result.blockCount == 12)
  }

  /// Where the best place has lost something, the next one is taken; nothing is fetched for a prefix without any.
  @Test(arguments: ["section", "chunk", "damage"]) func whatIsMissingCostsThePlaceOnly(
    kind: String
  ) throws {
    let machines = try RemoteFixture { configuration, _ in configuration.remote.blocksPerChunk = 8 }
    try write(machines, identity, statesAt: [6, 13])
    let (namespace, sections) = try Self.open(machines.a, identity)
    let digest = try SectionTests.words(sections[1], prompt, 13)
    let key = kind == "chunk" ? try namespace.keys(prompt)[11] : try sections[1].keys(digest)[0]
    let name = try #require(
      machines.remote.objects.keys.first { $0.text.hasSuffix(key.hexadecimal) }
    )
    if kind == "damage" {
      machines.remote.change(name) { $0[$0.count - 5] ^= 1 }
    } else {
      machines.remote.objects[name] = nil
    }
    let (other, others) = try Self.open(machines.b, identity)
    #expect(try Self.match(other, others, prompt).blockCount == 6)
    #expect(try other.restore(Array(prompt[..<24])).isRight)
    try expectState(others, at: 6)
    if kind == "damage" {
      #expect(try machines.statistics.misses[.damaged] == 1)
      #expect(machines.remote.objects[name] == nil)
    }
  }

  @Test func withoutAnyStateNothingIsFetched() throws {
    let machines = try RemoteFixture()
    try write(machines, identity, statesAt: [])
    let (namespace, sections) = try Self.open(machines.b, identity)
    #expect(try Self.match(namespace, sections, prompt).blockCount == 0)
    #expect(try machines.statistics.chunksFetched == 0)
    #expect(try machines.statistics.misses[.absent] ?? 0 > 0)
    // Who needs no state does.
    #expect(try namespace.matchRemote(prompt).blockCount == 16)
  }

  /// At a second use of the prefix the state goes with it.
  @Test func reusedStatesGo() throws {
    let machines = try RemoteFixture(writes: .reused)
    try write(machines, identity, statesAt: [13])
    #expect(machines.remote.objects.isEmpty)
    let (namespace, sections) = try Self.open(machines.a, identity)
    #expect(try Self.match(namespace, sections, prompt, []).blockCount == 13)
    machines.a.store.waitForRemote()
    let (other, others) = try Self.open(machines.b, identity)
    #expect(try Self.match(other, others, prompt).blockCount == 13)
    try expectState(others, at: 13)
  }

  @Test(arguments: [false, true]) func purgesTakeTheStatesAlong(isSalted: Bool) throws {
    let machines = try RemoteFixture { configuration, _ in
      if isSalted { configuration.remote.key = RemoteFixture.key }
    }
    let identity = StoreFixture.identity([2000, 1000]) { if isSalted { $0.salt = [7, 7] } }
    try write(machines, identity, statesAt: [5, 13])
    let (namespace, _) = try Self.open(machines.a, identity)
    _ = try Prompt.with(Array(prompt[..<40])) { (prompt) throws(StoreError) in
      try namespace.purge(prompt)
    }
    try RemotePurgeTests.waitForPurges(machines.a)
    if !isSalted {
      // What stood before the purged part is still of use.
      let (other, others) = try Self.open(machines.b, identity)
      #expect(try Self.match(other, others, prompt).blockCount == 5)
    }
    _ = try namespace.purge()
    try RemotePurgeTests.waitForPurges(machines.a)
    #expect(machines.remote.objects.isEmpty)
  }
}
