import KVCore
import KVTestSupport
import KVTiers
import Testing

@Suite struct BlockTablesTests {
  private func append(
    _ tables: inout BlockTables,
    _ sequence: UInt64,
    _ tokens: [UInt32]
  ) throws -> (from: Int, to: Int)? {
    let growth = try tables.prepareAppend(sequence, tokens)
    try tables.commit(growth)
    return growth.copyOnWrite
  }

  /// Blocks of 4 tokens: 3 whole ones and a half, shared by four; each grows alone.
  @Test func aForkSharesUntilItGrows() throws {
    var tables = BlockTables(slotCount: 16, tokensPerBlock: 4)
    let trunk = tables.create()
    #expect(try append(&tables, trunk, Array(0..<14)) == nil)
    #expect(tables.usedSlotCount == 4)
    var all = [trunk]
    for _ in 0..<3 { all.append(try tables.fork(trunk)) }
    let shared = try tables.table(trunk)
    #expect(tables.usedSlotCount == 4)
    for slot in shared { #expect(tables.referenceCount(slot) == 4) }
    for (number, sequence) in all.enumerated() {
      let copy = try append(&tables, sequence, [100, 101, 102, UInt32(number)])
      // The last one to grow has the block for itself by then.
      #expect((copy == nil) == (number == 3))
      if let copy { #expect(copy.from == shared[3] && copy.to != shared[3]) }
      #expect(tables.checkInvariants().isEmpty)
    }
    // 3 shared, and two of its own for each: used slots = shared + own.
    #expect(tables.usedSlotCount == 3 + 4 * 2)
    for slot in shared[..<3] { #expect(tables.referenceCount(slot) == 4) }
    let lasts = try all.map { try tables.table($0)[3] }
    #expect(Set(lasts).count == 4)
    for sequence in all { try tables.free(sequence) }
    #expect(tables.usedSlotCount == 0 && tables.cachedSlotCount == 0)
    #expect((0..<16).allSatisfy { tables.referenceCount($0) == 0 })
    #expect(tables.checkInvariants().isEmpty)
    #expect(throws: BlockTablesError.unknownSequence) { try tables.table(trunk) }
  }

  @Test func appendingIsAllOrNothing() throws {
    var tables = BlockTables(slotCount: 3, tokensPerBlock: 4)
    let first = tables.create()
    _ = try append(&tables, first, Array(0..<6))
    let second = try tables.fork(first)
    #expect(throws: BlockTablesError.full) { try tables.prepareAppend(second, Array(0..<8)) }
    #expect(try tables.tokens(second).count == 6 && tables.usedSlotCount == 2)
    // What was reserved by a call that another one overtook is given back.
    let growth = try tables.prepareAppend(second, [1])
    #expect(tables.usedSlotCount == 3)
    try tables.free(second)
    #expect(throws: BlockTablesError.changed) { try tables.commit(growth) }
    #expect(tables.usedSlotCount == 2 && tables.checkInvariants().isEmpty)
  }

  private static func keys(_ tokens: [UInt32], narrow: Bool = false) -> [BlockKey] {
    let chain = KeyChain(
      rootKey: BlockKey(high: 1, low: 2),
      identityMode: .tokens,
      wordsPerBlock: 4,
      keyBitCount: narrow ? 2 : 128
    )
    var parent = chain.rootKey
    return (0..<tokens.count / 4).map { block in
      tokens.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress else { return }
        parent = chain.key(
          after: parent,
          words: base + block * 16,
          extra: UnsafeRawBufferPointer(start: nil, count: 0)
        )
      }
      return parent
    }
  }

  @Test func labelledBlocksAreSharedAndCached() throws {
    var tables = BlockTables(slotCount: 6, tokensPerBlock: 4)
    let prompt = (0..<16).map { UInt32($0) }
    let first = tables.create()
    _ = try append(&tables, first, prompt)
    try tables.label(first, keys: Self.keys(prompt))
    let slots = try tables.table(first)
    try tables.free(first)
    #expect(tables.usedSlotCount == 0 && tables.cachedSlotCount == 4)
    let second = tables.create()
    #expect(try tables.share(second, prompt, keys: Self.keys(prompt)) == 4)
    #expect(try tables.table(second) == slots)
    #expect(throws: BlockTablesError.notEmpty) {
      try tables.share(second, prompt, keys: Self.keys(prompt))
    }
    try tables.free(second)
    // Room is made from the end of the path: what is left is a prefix.
    let third = tables.create()
    _ = try append(&tables, third, Array(100..<116))
    let fourth = tables.create()
    #expect(try tables.share(fourth, prompt, keys: Self.keys(prompt)) == 2)
    #expect(tables.checkInvariants().isEmpty)
  }

  /// Random operations against tables of arrays; keys are cut to 2 bits now and then, so that nearly all collide.
  @Test(arguments: UInt64(1)...20)
  func behavesAsItsModel(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let slotCount = Int.random(in: 1...24, using: &random)
    var tables = BlockTables(slotCount: slotCount, tokensPerBlock: 4)
    /// What each sequence's tokens are, and what the engine wrote to each slot: the tokens up to there.
    var model: [UInt64: [UInt32]] = [:]
    var written = Array(repeating: [UInt32](), count: slotCount)
    var holds: [[Int]] = []
    let narrow = seed % 3 == 0
    func write(_ sequence: UInt64) throws {
      let tokens = model[sequence] ?? []
      for (block, slot) in try tables.table(sequence).enumerated() {
        written[slot] = Array(tokens[..<min((block + 1) * 4, tokens.count)])
      }
    }
    for step in 0..<300 {
      let chosen = model.keys.sorted().randomElement(using: &random)
      switch Int.random(in: 0..<9, using: &random) {
      case 0: model[tables.create()] = []
      case 1:
        guard let chosen else { continue }
        model[try tables.fork(chosen)] = model[chosen]
      case 2:
        guard let chosen else { continue }
        try tables.free(chosen)
        model[chosen] = nil
      case 3, 4:
        guard let chosen else { continue }
        let tokens = (0..<Int.random(in: 0...9, using: &random)).map { _ in
          UInt32.random(in: 0...1, using: &random)
        }
        do throws(BlockTablesError) {
          let growth = try tables.prepareAppend(chosen, tokens)
          if Int.random(in: 0..<8, using: &random) == 0 {
            tables.abort(growth)
            continue
          }
          if let copy = growth.copyOnWrite { written[copy.to] = written[copy.from] }
          try tables.commit(growth)
        } catch {
          #expect(error == .full)
          continue
        }
        model[chosen]? += tokens
        try write(chosen)
      case 5, 6:
        guard let chosen, let tokens = model[chosen] else { continue }
        try tables.label(chosen, keys: Self.keys(tokens, narrow: narrow))
      case 7:
        let prompt = (0..<Int.random(in: 0...16, using: &random)).map { _ in
          UInt32.random(in: 0...1, using: &random)
        }
        let sequence = tables.create()
        let keys = Self.keys(prompt, narrow: narrow)
        let count = try tables.share(sequence, prompt, keys: keys)
        model[sequence] = Array(prompt[..<(count * 4)])
      default:
        if !holds.isEmpty, Bool.random(using: &random) {
          tables.letGo(holds.removeLast())
        } else if let chosen {
          let slots = try tables.table(chosen)
          tables.hold(slots)
          holds.append(slots)
        }
      }
      var faults = tables.checkInvariants()
      // Each sequence finds in its slots what was computed for its own tokens.
      for (sequence, tokens) in model {
        if try tables.tokens(sequence) != tokens { faults.append("tokens of \(sequence)") }
        for (block, slot) in try tables.table(sequence).enumerated()
        where !written[slot].starts(with: tokens[..<min((block + 1) * 4, tokens.count)]) {
          faults.append("slot \(slot) of \(sequence)")
        }
      }
      #expect(faults.isEmpty, "seed \(seed), step \(step): \(faults)")
    }
    for sequence in model.keys.sorted() { try tables.free(sequence) }
    for slots in holds { tables.letGo(slots) }
    #expect(tables.usedSlotCount == 0 && tables.checkInvariants().isEmpty)
  }
}
