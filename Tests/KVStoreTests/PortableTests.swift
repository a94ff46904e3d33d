import Foundation
import KVAdmin
import KVCore
import KVStore
import Testing

/// Export and import, between two stores.
@Suite struct PortableTests {
  private static func tokens(_ first: Int, blocks: Int) -> [UInt32] {
    (0..<blocks * 4).map { UInt32(first * 1000 + $0) }
  }

  private static let trunk = tokens(1, blocks: 6)
  private static let branches = (2...3).map { Array(trunk.prefix(12)) + tokens($0, blocks: 3) }
  private static let deepBranch = Array(trunk.prefix(20)) + tokens(4, blocks: 2)
  private static let twig = Array(branches[0].prefix(20)) + tokens(5, blocks: 1)
  private static let other = tokens(9, blocks: 2)
  private static let prompts = [trunk, other, deepBranch] + branches + [twig]
  /// Blocks of all of them, what they share counted once.
  private static let blockCount = 6 + 2 + 2 + 3 + 3 + 1

  private func filled(_ identity: NamespaceIdentity) throws -> StoreFixture {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(identity)
    for prompt in Self.prompts { try namespace.offload(prompt) }
    try fixture.store.flush()
    return fixture
  }

  private func export(
    _ fixture: StoreFixture,
    _ prompt: [UInt32]? = nil,
    namespace: UInt32 = 1
  ) throws -> (file: [UInt8], result: ExportResult) {
    var file: [UInt8] = []
    let id = NamespaceID(rawValue: namespace)
    let result = try fixture.store.exportBlocks(of: id, prompt: prompt) { bytes in
      file += bytes
      return true
    }
    #expect(result.isComplete)
    return (file, result)
  }

  private func load(_ file: [UInt8], into fixture: StoreFixture) throws -> ImportResult {
    var offset = 0
    return try fixture.store.importBlocks { count in
      let piece = Array(file[offset..<min(file.count, offset + count)])
      offset += piece.count
      return piece
    }
  }

  /// Where each record of a file begins, and its end; from the lengths alone.
  private func recordOffsets(_ file: [UInt8]) -> [Int] {
    func integer(_ offset: Int) -> Int {
      file[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
    var offsets = [0, 16 + integer(12) + 8]
    while let last = offsets.last, last < file.count {
      let byteCount = integer(last)
      offsets.append(last + (byteCount == 0 ? 20 : 4 + byteCount) + 8)
    }
    return offsets
  }

  /// Payload in slots and in the catalog; a tree with forks at several depths.
  @Test(arguments: [[40_000, 24_000], [64]])
  func aNamespaceGoesToAnotherStore(regions: [Int]) throws {
    let identity = StoreFixture.identity(regions)
    let source = try filled(identity)
    let (file, exported) = try export(source)
    #expect(exported.blockCount == Self.blockCount)
    #expect(exported.missedBlockCount == 0)
    let target = try StoreFixture()
    let result = try load(file, into: target)
    #expect(result.problem == nil)
    #expect(result.blockCount == Self.blockCount)
    #expect(result.storedBlockCount == Self.blockCount)
    #expect(result.payloadByteCount == Self.blockCount * regions.reduce(0, +))
    try target.reopen()
    let namespace = try target.store.openNamespace(identity)
    for prompt in Self.prompts {
      let restored = try namespace.restore(prompt)
      #expect(restored.result.doneBlockCount == prompt.count / 4)
      #expect(restored.isRight)
    }
    #expect(try target.store.verify().findings.isEmpty)
    // Once more: all is known, and nothing is written.
    let again = try load(file, into: target)
    #expect(again.knownBlockCount == Self.blockCount)
    #expect(again.storedBlockCount == 0)
    // The file says nothing of a store: another one gives the same blocks.
    #expect(try export(target).result.blockCount == Self.blockCount)
  }

  /// More blocks than are read in one transaction or moved in one call, with forks on both sides of both limits.
  @Test func aLongChainWithForks() throws {
    let identity = StoreFixture.identity([64])
    let source = try StoreFixture()
    let namespace = try source.store.openNamespace(identity)
    let trunk = (0..<2300 * 4).map { UInt32($0) }
    let branches = [3, 255, 256, 257, 999, 1000, 1001, 2299].map {
      Array(trunk.prefix($0 * 4)) + Self.tokens(100 + $0, blocks: 2)
    }
    for prompt in [trunk] + branches { try namespace.offload(prompt) }
    try source.store.flush()
    let target = try StoreFixture()
    let result = try load(export(source).file, into: target)
    #expect(result.problem == nil)
    #expect(result.storedBlockCount == 2300 + 8 * 2)
    let copied = try target.store.openNamespace(identity)
    for prompt in [trunk] + branches {
      let restored = try copied.restore(prompt)
      #expect(restored.result.doneBlockCount == prompt.count / 4)
      #expect(restored.isRight)
    }
  }

  @Test func aPrefixAlone() throws {
    let source = try filled(StoreFixture.identity())
    let target = try StoreFixture()
    let result = try load(export(source, Self.branches[0] + [1, 2]).file, into: target)
    #expect(result.storedBlockCount == 6)
    let namespace = try target.store.openNamespace(StoreFixture.identity())
    #expect(try namespace.restore(Self.branches[0]).isRight)
    #expect(try namespace.peek(Self.branches[0]) == 6)
    #expect(try namespace.peek(Self.branches[1]) == 3)
    #expect(try load(export(source, [7, 7, 7, 7]).file, into: target).blockCount == 0)
  }

  /// A file has whole blocks, although a restore of such a namespace leaves out what its layers do not look back to.
  @Test func blocksOfGroupsAreWhole() throws {
    let identity = StoreFixture.identity([8192, 4096]) {
      $0.groups = [KVCacheGroup(regions: 0..<1, windowTokenCount: 4)]
    }
    let source = try filled(identity)
    try source.reopen()
    let target = try StoreFixture()
    #expect(try load(export(source).file, into: target).storedBlockCount == Self.blockCount)
    let namespace = try target.store.openNamespace(identity)
    let buffers = TransferBuffers(identity, blockCount: 6)
    buffers.ignoresWindows = true
    #expect(try buffers.restore(Self.trunk, from: namespace).doneBlockCount == 6)
    #expect(buffers.isRight(Self.trunk))
  }

  @Test func extraBytesAreKept() throws {
    let identity = StoreFixture.identity([64]) { $0.extraByteCountMax = 8 }
    let source = try StoreFixture()
    let target = try StoreFixture()
    func withPrompt<R>(_ body: (Prompt) throws -> R) throws -> R {
      let words = Self.other
      return try words.withUnsafeBufferPointer { words in
        try [UInt8](1...5).withUnsafeBytes { bytes in
          try body(Prompt(words: words.baseAddress, wordCount: 8, extra: [bytes]))
        }
      }
    }
    let buffers = TransferBuffers(identity, blockCount: 2)
    buffers.fill(from: Self.other)
    let namespace = try source.store.openNamespace(identity)
    #expect(
      try withPrompt { try namespace.offload($0, buffers.transfer()) }.doneBlockCount == 2
    )
    try source.store.flush()
    #expect(try load(export(source).file, into: target).storedBlockCount == 2)
    let copied = try target.store.openNamespace(identity)
    buffers.fill(0)
    #expect(try withPrompt { try copied.restore($0, buffers.transfer()) }.doneBlockCount == 2)
    #expect(buffers.isRight(Self.other))
    #expect(try copied.peek(Self.other) == 0)
  }

  /// A byte in steps over the whole file: the import ends at that record, and nothing but whole blocks is taken.
  @Test func aDamagedByteEndsTheImport() throws {
    let identity = StoreFixture.identity([64])
    let source = try filled(identity)
    let file = try export(source, Self.branches[0]).file
    let offsets = recordOffsets(file)
    #expect(offsets.count == 1 + 1 + 6 + 1)
    let target = try StoreFixture()
    for index in stride(from: 0, to: file.count, by: 7) {
      var damaged = file
      damaged[index] ^= 0x10
      let result = try load(damaged, into: target)
      #expect(result.problem != nil, "byte \(index)")
      let record = try #require(offsets.lastIndex { $0 <= index })
      #expect(result.problemOffset == offsets[record], "byte \(index)")
      #expect(result.blockCount == min(6, max(0, record - 1)), "byte \(index)")
    }
    let namespace = try target.store.openNamespace(identity)
    let restored = try namespace.restore(Self.branches[0])
    #expect(restored.result.doneBlockCount == 6)
    #expect(restored.isRight)
    #expect(try target.store.inspector.namespaces().count == 1)
    #expect(try target.store.verify().findings.isEmpty)
  }

  @Test func aCutFileIsSeen() throws {
    let source = try filled(StoreFixture.identity([64]))
    let file = try export(source, Self.other).file
    let target = try StoreFixture()
    let counts = Set(stride(from: 1, to: file.count, by: 9)).union(recordOffsets(file).dropFirst())
    for count in counts.filter({ $0 < file.count }) {
      #expect(try load(Array(file[..<count]), into: target).problem == .truncated, "\(count)")
    }
    #expect(try load([], into: target).problem == .notABlockFile)
    #expect(try load(Array("KVSLOT".utf8), into: target).problem == .notABlockFile)
    #expect(try load(file + [0], into: target).problem == .damaged)
    // Without its last block the file is not whole, although each of its records is.
    let offsets = recordOffsets(file)
    let cut = Array(file[..<offsets[2]] + file[offsets[3]...])
    let result = try load(cut, into: target)
    #expect(result.problem == .damaged)
    #expect(result.problemOffset == offsets[2])
  }

  /// The blocks of one model under the identity of another are refused.
  @Test func anotherModelsBlocksAreNotTaken() throws {
    let file = try export(filled(StoreFixture.identity([64]))).file
    let another = StoreFixture.identity([64]) { $0.modelName = "else" }
    let anothersFile = try export(filled(another)).file
    let target = try StoreFixture()
    let spliced = anothersFile[..<recordOffsets(anothersFile)[1]] + file[recordOffsets(file)[1]...]
    let result = try load(Array(spliced), into: target)
    #expect(result.problem == .damaged)
    #expect(result.blockCount == 0)
    // Side by side each has its own.
    #expect(try load(file, into: target).storedBlockCount == Self.blockCount)
    #expect(try target.store.openNamespace(another).peek(Self.trunk) == 0)
    #expect(try load(anothersFile, into: target).storedBlockCount == Self.blockCount)
    #expect(try target.store.inspector.namespaces().count == 2)
  }

  @Test func aSaltStaysAtHome() throws {
    let source = try filled(StoreFixture.identity { $0.salt = [1, 2, 3] })
    #expect(throws: StoreError.invalidArgument(.salt)) { try export(source) }
    #expect(throws: StoreError.invalidArgument(.namespace)) { try export(source, namespace: 7) }
  }

  /// What was damaged in the store is left out, with what is below it; the rest is whole.
  @Test func damageIsLeftOut() throws {
    let identity = StoreFixture.identity()
    let source = try filled(identity)
    let folder = source.configuration.path + "/slots"
    try source.whileClosed {
      let name = try #require(try FileManager.default.contentsOfDirectory(atPath: folder).first)
      let file = try #require(FileHandle(forUpdatingAtPath: folder + "/" + name))
      // The slots are filled in the order in which the blocks were offloaded: the trunk's fourth.
      try file.seek(toOffset: UInt64(3 * (4096 + 65_536) + 5000))
      try file.write(contentsOf: Data([0xFF, 0xFF, 0xFF, 0xFF]))
      try file.close()
    }
    let (file, exported) = try export(source)
    // Blocks 3 to 5 of the trunk and the branch behind its fifth.
    #expect(exported.missedBlockCount == 3 + 2)
    #expect(exported.blockCount == Self.blockCount - 5)
    let target = try StoreFixture()
    let result = try load(file, into: target)
    #expect(result.problem == nil)
    #expect(result.storedBlockCount == Self.blockCount - 5)
    let namespace = try target.store.openNamespace(identity)
    #expect(try namespace.peek(Self.trunk) == 3)
    #expect(try namespace.restore(Self.twig).isRight)
  }

  @Test func aFileThatCannotBeWritten() throws {
    let source = try filled(StoreFixture.identity())
    for callCount in [0, 1, 2, 3, 4, 7] {
      var left = callCount
      let result = try source.store.exportBlocks(of: NamespaceID(rawValue: 1)) { _ in
        left -= 1
        return left >= 0
      }
      #expect(!result.isComplete)
      #expect(result.blockCount == max(0, (callCount - 2) / 3))
    }
  }

  /// Blocks that are not stored go in although the store is full: older ones leave, as for an engine.
  @Test func importingIntoAFullStore() throws {
    let identity = StoreFixture.identity([1 << 20])
    let source = try StoreFixture { $0.hostBytes = 64 << 20 }
    let prompt = Self.tokens(1, blocks: 60)
    let other = Self.tokens(2, blocks: 20)
    let namespace = try source.store.openNamespace(identity)
    try namespace.offload(prompt)
    try namespace.offload(other)
    try source.store.flush()
    let file = try export(source, prompt).file
    let target = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.hostBytes = 8 << 20
    }
    #expect(try load(export(source, other).file, into: target).storedBlockCount == 20)
    let result = try load(file, into: target)
    #expect(result.problem == nil)
    #expect(result.blockCount == 60)
    #expect(result.storedBlockCount + result.droppedBlockCount == 60)
    let copied = try target.store.openNamespace(identity)
    #expect(try copied.restore(prompt).isRight)
    #expect(try target.store.statistics().diskBytesUsed <= 64 << 20)
  }
}
