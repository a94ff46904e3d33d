import Foundation
import KVCore
import KVStore
import KVTestSupport
import Testing

/// KV cache groups: of layers that look back a while only, a restore brings the last window.
@Suite struct GroupTests {
  private static func identity(
    _ regionByteCounts: [Int],
    _ groups: [KVCacheGroup],
    tokensPerBlock: Int = 4
  ) -> NamespaceIdentity {
    StoreFixture.identity(regionByteCounts) {
      $0.groups = groups
      $0.tokensPerBlock = tokensPerBlock
    }
  }

  private static func offload(_ namespace: Namespace, _ prompt: [UInt32]) throws {
    let blockCount = prompt.count / namespace.identity.tokensPerBlock
    let buffers = TransferBuffers(namespace.identity, blockCount: blockCount)
    buffers.fill(from: prompt)
    #expect(try buffers.offload(prompt, to: namespace).firstProblem == nil)
  }

  /// 18 layers, of which every sixth looks at everything and the others back 512 tokens; 3,072 tokens in blocks of 64.
  @Test func aLongPrefixReadsTheLastWindow() throws {
    let regionByteCount = 32 << 10
    let sizes = Array(repeating: regionByteCount, count: 18)
    let windowed = KVCacheGroup(regions: 3..<18, windowTokenCount: 512)
    let fixture = try StoreFixture { $0.hostBytes = 4 << 20 }
    let identity = Self.identity(sizes, [windowed], tokensPerBlock: 64)
    let prompt = tokens(0..<3072)
    try Self.offload(fixture.store.openNamespace(identity), prompt)
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(identity)
    func bytesRead(_ change: (TransferBuffers) -> Void) throws -> (copied: Int, read: Int) {
      let buffers = TransferBuffers(identity, blockCount: 48)
      change(buffers)
      let before = try fixture.store.statistics()
      let result = try buffers.restore(prompt, from: namespace)
      #expect(result.doneBlockCount == 48 && result.diskBlockCount == 48)
      let after = try fixture.store.statistics()
      return (result.byteCount, Int(after.diskBytesRead - before.diskBytesRead))
    }
    let window = try bytesRead { _ in }
    // Three layers of all blocks, 15 of the last eight; and with each block its header, a page.
    #expect(window.copied == (48 * 3 + 8 * 15) * regionByteCount)
    #expect(window.read == window.copied + 48 * 4096)
    // 8 of the blocks have their whole slots in RAM by now.
    try fixture.reopen()
    let again = try fixture.store.openNamespace(identity)
    let buffers = TransferBuffers(identity, blockCount: 48)
    buffers.ignoresWindows = true
    #expect(try buffers.restore(prompt, from: again).byteCount == 48 * 18 * regionByteCount)
    #expect(buffers.isRight(prompt))
    let whole = Int(try fixture.store.statistics().diskBytesRead)
    #expect(whole == 48 * (18 * regionByteCount + 4096))
    // 69 % less.
    #expect(Double(window.read) < 0.312 * Double(whole))
    // All layers of it one after the other come to the same regions.
    try fixture.reopen()
    let layered = try fixture.store.openNamespace(identity)
    var copied = 0
    for layer in 0..<18 {
      let buffers = TransferBuffers(identity, blockCount: 48, regions: layer..<layer + 1)
      copied += try buffers.restore(prompt, from: layered).byteCount
    }
    #expect(copied == window.copied)
    // Of a windowed layer's blocks before the window not even the header is read. Layer 1 is near enough to the header that layer 0 comes along.
    #expect(
      Int(try fixture.store.statistics().diskBytesRead)
        == copied + (3 * 48 + 15 * 8) * 4096 + 48 * regionByteCount
    )
  }

  /// Where the blocks come from in `restoresBringWhatIsNeeded`.
  enum Source: CaseIterable {
    case host, disk, catalog, archive
  }

  /// Random groups, windows, ranges and prefixes against what each layer looks at, token by token.
  @Test(arguments: Source.allCases, 0..<3)
  func restoresBringWhatIsNeeded(_ source: Source, seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let fixture = try StoreFixture {
      guard source == .archive else { return }
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 56 << 20
      $0.hostBytes = 8 << 20
      $0.archiveBytesMin = 1
      $0.archiveBytes = 32 << 20
    }
    let largest = source == .catalog ? 1000 : source == .archive ? 50_000 : 90_000
    let sizes = (0..<Int.random(in: 1...10, using: &random)).map { _ in
      Int.random(in: 1...largest, using: &random)
    }
    var groups: [KVCacheGroup] = []
    var next = 0
    while next < sizes.count {
      let end = Int.random(in: next + 1...sizes.count, using: &random)
      if Bool.random(using: &random) {
        let window = Int.random(in: 0...50, using: &random)
        groups.append(KVCacheGroup(regions: next..<end, windowTokenCount: window))
      }
      next = end
    }
    let identity = Self.identity(sizes, groups)
    var namespace = try fixture.store.openNamespace(identity)
    let prompt = tokens(0..<48)
    try Self.offload(namespace, prompt)
    try fixture.store.flush()
    if source != .host {
      if source == .archive {
        for number in 1..<40 where try fixture.store.statistics().blocksDemoted < 12 {
          try namespace.offload(QuotaTests.prompt(number, blocks: 12))
          try fixture.store.flush()
        }
      }
      try fixture.reopen()
      namespace = try fixture.store.openNamespace(identity)
    }
    for step in 0..<8 {
      let first = Int.random(in: 0..<12, using: &random)
      let end = Int.random(in: first + 1...12, using: &random)
      let prefix = Bool.random(using: &random) ? 0 : Int.random(in: end...12, using: &random)
      let firstRegion = Int.random(in: 0..<sizes.count, using: &random)
      let endRegion = Int.random(in: firstRegion + 1...sizes.count, using: &random)
      let regions = step % 2 == 0 ? 0..<sizes.count : firstRegion..<endRegion
      let buffers = TransferBuffers(
        identity,
        firstBlock: first,
        blockCount: end - first,
        regions: regions
      )
      buffers.prefixBlockCount = prefix
      buffers.fill(0xEE)
      let result = try buffers.restore(prompt, from: namespace)
      #expect(result.doneBlockCount == end - first)
      let prefixEnd = 4 * (prefix == 0 ? end : prefix)
      var byteCount = 0
      for block in first..<end {
        for region in regions {
          let window =
            groups.first { $0.regions.contains(region) && $0.windowTokenCount > 0 }?
            .windowTokenCount ?? prefixEnd
          let isNeeded = (4 * block..<4 * block + 4).contains { $0 >= prefixEnd - window }
          byteCount += isNeeded ? sizes[region] : 0
          let place = (block: block - first, region: region - regions.lowerBound)
          let isAsItShould =
            isNeeded
            ? buffers.isRight(prompt, block: place.block, region: place.region)
            : buffers.isUntouched(block: place.block, region: place.region, filledWith: 0xEE)
          #expect(isAsItShould, "step \(step), block \(block), region \(region)")
        }
      }
      #expect(result.byteCount == byteCount, "step \(step)")
    }
    if source == .archive { #expect(try fixture.store.statistics().archiveBytesRead > 0) }
  }

  /// Each region has its checksum: what is read is proved, what is not read is not looked at.
  @Test func damageOutsideOfTheWindowIsNotMet() throws {
    let identity = Self.identity(
      [70_000, 70_000, 70_000],
      [KVCacheGroup(regions: 1..<2, windowTokenCount: 8)]
    )
    let fixture = try StoreFixture()
    let prompt = tokens(0..<40)
    try Self.offload(fixture.store.openNamespace(identity), prompt)
    try fixture.store.flush()
    // The windowed region of block 2.
    try fixture.whileClosed {
      let wanted = regionBytes([0] + prompt[..<12], region: 1, count: 70_000)
      let folder = URL(filePath: fixture.configuration.path).appending(path: "slots")
      for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
        let file = folder.appending(path: name)
        var bytes = [UInt8](try Data(contentsOf: file))
        for hit in bytes.ranges(of: Array(wanted[60_000..<60_100])) {
          bytes[hit.lowerBound] ^= 1
        }
        try Data(bytes).write(to: file)
      }
    }
    let namespace = try fixture.store.openNamespace(identity)
    let buffers = TransferBuffers(identity, blockCount: 10)
    #expect(try buffers.restore(prompt, from: namespace).doneBlockCount == 10)
    // A prefix of three blocks has it in its window.
    let shorter = TransferBuffers(identity, blockCount: 3)
    let result = try shorter.restore(prompt, from: namespace)
    #expect(result.doneBlockCount == 2 && result.firstProblem == .miss)
    #expect(try fixture.store.statistics().missesCorrupt == 1)
    #expect(try namespace.peek(prompt) == 2)
  }

  /// What a restore is expected to take follows from what it brings.
  @Test func estimatesCountWhatIsNeeded() throws {
    let fixture = try StoreFixture()
    let prompt = tokens(0..<48)
    let sizes = [20_000, 60_000]
    let windowed = try fixture.store.openNamespace(
      Self.identity(sizes, [KVCacheGroup(regions: 1..<2, windowTokenCount: 12)])
    )
    let whole = try fixture.store.openNamespace(Self.identity(sizes, []))
    for namespace in [windowed, whole] { try Self.offload(namespace, prompt) }
    _ = try TransferBuffers(whole.identity, blockCount: 12).restore(prompt, from: whole)
    let needed = Double(try windowed.match(prompt, .peek).restoreNanosecondsEstimated)
    let all = Double(try whole.match(prompt, .peek).restoreNanosecondsEstimated)
    #expect(all > 0)
    #expect(abs(needed / all - (12 * 20_000 + 3 * 60_000) / (12 * 80_000)) < 0.001)
  }

  @Test func groupsAreChecked() throws {
    let fixture = try StoreFixture()
    let bad: [[KVCacheGroup]] = [
      [KVCacheGroup(regions: 1..<1, windowTokenCount: 4)],
      [KVCacheGroup(regions: 1..<3, windowTokenCount: 4)],
      [KVCacheGroup(regions: 0..<1, windowTokenCount: 1 << 32)],
      [KVCacheGroup(regions: 1..<2), KVCacheGroup(regions: 0..<1)],
      [KVCacheGroup(regions: 0..<2), KVCacheGroup(regions: 1..<2)],
    ]
    for groups in bad {
      #expect(throws: StoreError.invalidArgument(.groups), "\(groups)") {
        try fixture.store.openNamespace(Self.identity([1000, 1000], groups))
      }
    }
    let namespace = try fixture.store.openNamespace(
      Self.identity([1000, 1000], [KVCacheGroup(regions: 0..<1, windowTokenCount: 4)])
    )
    let prompt = tokens(0..<16)
    try Self.offload(namespace, prompt)
    let buffers = TransferBuffers(namespace.identity, firstBlock: 1, blockCount: 2)
    for count in [1, 2, 5] {
      buffers.prefixBlockCount = count
      #expect(throws: StoreError.invalidArgument(.prefixBlockCount), "\(count)") {
        try buffers.restore(prompt, from: namespace)
      }
    }
  }
}
