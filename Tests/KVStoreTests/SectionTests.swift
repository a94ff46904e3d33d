import Foundation
import KVAdmin
import KVCore
import KVStore
import KVTestSupport
import Testing

/// Side sections: a prefix is usable where the state of its recurrent layers is stored too.
@Suite struct SectionTests {
  static let byteCountMax = 50_000

  /// Stores a section behind the prompt's leading blocks, of bytes that follow from `seed`.
  static func offload(
    _ section: Namespace,
    _ prompt: [UInt32],
    blockCount: Int,
    seed: UInt32 = 0,
    byteCount: Int = byteCountMax
  ) throws {
    let state = regionBytes([seed, UInt32(blockCount)], region: 0, count: byteCount)
    let outcome = try withSpan(of: state) { spans in
      try Prompt.with(words(section, prompt, blockCount)) { (digest) throws(StoreError) in
        try section.offload(digest, Transfer(spans: spans))
      }
    }
    #expect(outcome.firstProblem == nil)
  }

  static func restore(
    _ section: Namespace,
    _ prompt: [UInt32],
    blockCount: Int
  ) throws -> [UInt8]? {
    let room = [UInt8](repeating: 0xEE, count: byteCountMax)
    var bytes: [UInt8]?
    _ = try withSpan(of: room) { spans in
      let result = try Prompt.with(words(section, prompt, blockCount)) {
        (digest) throws(StoreError) in
        try section.restore(digest, Transfer(spans: spans))
      }
      if result.doneBlockCount == 1, let base = spans[0].data {
        bytes = Array(UnsafeRawBufferPointer(start: base, count: spans[0].length))
      }
      return result
    }
    return bytes
  }

  static func withSpan<Result>(
    of bytes: [UInt8],
    _ body: (UnsafeMutableBufferPointer<TransferSpan>) throws -> Result
  ) throws -> Result {
    var bytes = bytes
    return try bytes.withUnsafeMutableBytes { bytes in
      var span = TransferSpan(
        data: bytes.baseAddress,
        capacity: bytes.count,
        length: bytes.count
      )
      return try withUnsafeMutablePointer(to: &span) {
        try body(UnsafeMutableBufferPointer(start: $0, count: 1))
      }
    }
  }

  static func words(
    _ section: Namespace,
    _ prompt: [UInt32],
    _ blockCount: Int
  ) throws -> [UInt32] {
    let digest = try Prompt.with(prompt) { (prompt) throws(StoreError) in
      try section.sectionDigest(prompt, blockCount: blockCount)
    }
    return digest.withUnsafeBytes { bytes in Array(bytes.bindMemory(to: UInt32.self)) }
  }

  private static func match(
    _ namespace: Namespace,
    _ prompt: [UInt32],
    _ sections: [Namespace],
    _ options: MatchOptions = .peek
  ) throws -> [MatchResult] {
    try Prompt.with(prompt) { (prompt) throws(StoreError) in
      try namespace.match(prompt, with: sections, options: options)
    }
  }

  private static func usable(
    _ namespace: Namespace,
    _ prompt: [UInt32],
    _ sections: [Namespace]
  ) throws -> Int {
    try match(namespace, prompt, sections)[0].blockCount
  }

  static func isStored(_ section: Namespace, _ prompt: [UInt32], _ blockCount: Int) throws
    -> Bool
  {
    try section.peek(words(section, prompt, blockCount)) == 1
  }

  @Test func onlyWhatAllSectionsReachIsUsable() throws {
    let fixture = try StoreFixture()
    let identity = StoreFixture.identity([40_000])
    let prompt = tokens(0..<48)
    let other = tokens(0..<20) + tokens(700..<728)
    func open() throws -> (Namespace, Namespace, Namespace) {
      let namespace = try fixture.store.openNamespace(identity)
      return (
        namespace, try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax),
        try namespace.openSection("window", byteCountMax: Self.byteCountMax)
      )
    }
    var (namespace, recurrent, window) = try open()
    // Sections without blocks are of no use.
    try Self.offload(recurrent, prompt, blockCount: 4)
    #expect(try Self.usable(namespace, prompt, [recurrent]) == 0)
    try namespace.offload(prompt)
    try namespace.offload(other)
    #expect(try Self.usable(namespace, prompt, []) == 12)
    #expect(try Self.usable(namespace, prompt, [recurrent]) == 4)
    #expect(try Self.usable(namespace, prompt, [recurrent, window]) == 0)
    try Self.offload(recurrent, prompt, blockCount: 9, byteCount: 123)
    try Self.offload(window, prompt, blockCount: 4, seed: 7)
    try Self.offload(window, prompt, blockCount: 11, seed: 7)
    for _ in 0..<2 {
      #expect(try Self.usable(namespace, prompt, [recurrent]) == 9)
      #expect(try Self.usable(namespace, prompt, [window]) == 11)
      #expect(try Self.usable(namespace, prompt, [recurrent, window]) == 4)
      // The shared front is the same prefix; behind it the other one has no state.
      #expect(try Self.usable(namespace, other, [recurrent]) == 4)
      #expect(try Self.isStored(recurrent, other, 9) == false)
      #expect(
        try Self.restore(recurrent, prompt, blockCount: 9)
          == regionBytes([0, 9], region: 0, count: 123)
      )
      #expect(
        try Self.restore(window, prompt, blockCount: 4)
          == regionBytes([7, 4], region: 0, count: Self.byteCountMax)
      )
      #expect(try Self.restore(recurrent, prompt, blockCount: 5) == nil)
      // The same from disk.
      try fixture.reopen()
      (namespace, recurrent, window) = try open()
    }
    #expect(try fixture.store.verify().findings == [])
  }

  /// An export carries one namespace: the blocks without their sections, and each kind of sections as a file of its own.
  @Test(arguments: [true, false]) func sectionsAreExportedByThemselves(_ blocksFirst: Bool) throws {
    let source = try StoreFixture()
    let identity = StoreFixture.identity([40_000])
    let prompt = tokens(0..<48)
    let namespace = try source.store.openNamespace(identity)
    let recurrent = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    try namespace.offload(prompt)
    try Self.offload(recurrent, prompt, blockCount: 4, byteCount: 123)
    try Self.offload(recurrent, prompt, blockCount: 9)
    try source.store.flush()
    func export(_ id: NamespaceID) throws -> [UInt8] {
      var file: [UInt8] = []
      let result = try source.store.exportBlocks(of: id) { bytes in
        file += bytes
        return true
      }
      #expect(result.isComplete)
      #expect(result.missedBlockCount == 0)
      return file
    }
    let files = [try export(namespace.id), try export(recurrent.id)]
    let target = try StoreFixture()
    func load(_ file: [UInt8]) throws -> ImportResult {
      var offset = 0
      return try target.store.importBlocks { count in
        let piece = Array(file[offset..<min(file.count, offset + count)])
        offset += piece.count
        return piece
      }
    }
    func open() throws -> (Namespace, Namespace) {
      let namespace = try target.store.openNamespace(identity)
      return (namespace, try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax))
    }
    for (index, file) in (blocksFirst ? files : files.reversed()).enumerated() {
      let result = try load(file)
      #expect(result.problem == nil)
      #expect(result.storedBlockCount == (blocksFirst == (index == 0) ? 12 : 2))
      // One without the other is found, and of no use to who asks for both.
      let (namespace, section) = try open()
      #expect(try Self.usable(namespace, prompt, [section]) == (index == 0 ? 0 : 9))
    }
    let (imported, section) = try open()
    #expect(try Self.usable(imported, prompt, []) == 12)
    #expect(try imported.restore(prompt).isRight)
    #expect(
      try Self.restore(section, prompt, blockCount: 4)
        == regionBytes([0, 4], region: 0, count: 123)
    )
    #expect(
      try Self.restore(section, prompt, blockCount: 9)
        == regionBytes([0, 9], region: 0, count: Self.byteCountMax)
    )
    #expect(try target.store.verify().findings == [])
  }

  @Test func aMatchLeasesThePrefixAndItsSections() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([40_000]))
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let prompt = tokens(0..<40)
    try namespace.offload(prompt)
    try Self.offload(section, prompt, blockCount: 6)
    let results = try Self.match(namespace, prompt, [section], [])
    #expect(results.map(\.blockCount) == [6, 1])
    #expect(results.allSatisfy { $0.lease != 0 })
    #expect(try fixture.store.statistics().leasesActive == 2)
    for result in results { #expect(try fixture.store.releaseLease(result.lease)) }
    // One token has to be computed: the section at the very end is no use.
    try Self.offload(section, prompt, blockCount: 10)
    #expect(try Self.match(namespace, prompt, [section])[0].blockCount == 10)
    #expect(
      try Self.match(namespace, prompt, [section], [.peek, .leaveOneToken])[0].blockCount == 6
    )
    #expect(try fixture.store.statistics().leasesActive == 0)
  }

  @Test func identitiesAreKeptApart() throws {
    let fixture = try StoreFixture()
    let identity = StoreFixture.identity([40_000])
    let namespace = try fixture.store.openNamespace(identity)
    let salted = try fixture.store.openNamespace(
      StoreFixture.identity([40_000]) { $0.salt = [1, 2, 3] }
    )
    let section = try namespace.openSection("a", byteCountMax: 1000)
    #expect(try namespace.openSection("a", byteCountMax: 1000).id == section.id)
    #expect(try namespace.openSection("b", byteCountMax: 1000).id != section.id)
    #expect(try namespace.openSection("a", byteCountMax: 2000).id != section.id)
    #expect(try salted.openSection("a", byteCountMax: 1000).id != section.id)
    // Of another owner, of no owner, of a section.
    #expect(throws: StoreError.invalidArgument(.namespace)) {
      try Self.match(salted, tokens(0..<8), [section])
    }
    #expect(throws: StoreError.invalidArgument(.namespace)) {
      try Self.match(namespace, tokens(0..<8), [namespace])
    }
    #expect(throws: StoreError.invalidArgument(.namespace)) {
      try Self.words(namespace, tokens(0..<8), 1)
    }
    #expect(throws: StoreError.invalidArgument(.sectionName)) {
      try section.openSection("c", byteCountMax: 1000)
    }
    for name in ["", String(repeating: "x", count: 65)] {
      #expect(throws: StoreError.invalidArgument(.sectionName)) {
        try namespace.openSection(name, byteCountMax: 1000)
      }
    }
    #expect(throws: StoreError.invalidArgument(.regionByteCount)) {
      try namespace.openSection("c", byteCountMax: 0)
    }
    #expect(throws: StoreError.invalidArgument(.blockRange)) {
      try Self.words(section, tokens(0..<8), 3)
    }
  }

  /// What is purged or forgotten tells nothing any more, its sections neither.
  @Test(arguments: [true, false]) func sectionsLeaveWithTheirBlocks(_ purges: Bool) throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([40_000]))
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let shared = tokens(0..<20)
    let prompts = (1...3).map { shared + tokens($0 * 1000..<$0 * 1000 + 20) }
    let deeper = prompts[1] + tokens(9000..<9020)
    for prompt in prompts + [deeper] {
      try namespace.offload(prompt)
      for blockCount in [3, 7, 10] { try Self.offload(section, prompt, blockCount: blockCount) }
    }
    try Self.offload(section, deeper, blockCount: 15)
    try fixture.store.flush()
    func stored() throws -> [Bool] {
      try [
        Self.isStored(section, shared, 3), Self.isStored(section, prompts[0], 7),
        Self.isStored(section, prompts[1], 7), Self.isStored(section, prompts[1], 10),
        Self.isStored(section, deeper, 15), Self.isStored(section, prompts[2], 10),
      ]
    }
    #expect(try stored() == [true, true, true, true, true, true])
    let front = Array(prompts[1].prefix(32))
    let count = try Prompt.with(front) { (prompt) throws(StoreError) in
      try purges ? namespace.purge(prompt) : namespace.forget(prompt)
    }
    // Blocks 8 to 15 of the deeper one.
    #expect(count == 8)
    #expect(try stored() == [true, true, true, false, false, true])
    if purges {
      let tail = try Prompt.with(prompts[0]) { (prompt) throws(StoreError) in
        try namespace.purge(prompt, onlyTail: true)
      }
      #expect(tail == 5)
      #expect(try stored() == [true, false, true, false, false, true])
      #expect(try namespace.purge() > 0)
    } else {
      #expect(try namespace.forget([]) > 0)
    }
    #expect(try stored() == [false, false, false, false, false, false])
    try fixture.reopen()
    #expect(try fixture.store.verify().findings == [])
  }

  /// The engine's own digests find sections as they find blocks.
  @Test func inDigestMode() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(
      StoreFixture.identity([40_000]) {
        $0.identityMode = .digest
        $0.digestByteCount = 64
      }
    )
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let prompt = tokens(0..<96)
    try namespace.offload(prompt)
    try Self.offload(section, prompt, blockCount: 4)
    #expect(try Self.words(section, prompt, 4) == Array(prompt[48..<64]))
    #expect(try Self.usable(namespace, prompt, [section]) == 4)
    #expect(
      try Prompt.with(Array(prompt.prefix(64))) { (prompt) throws(StoreError) in
        try namespace.purge(prompt)
      } == 3
    )
    #expect(try Self.isStored(section, prompt, 4) == false)
  }
}
