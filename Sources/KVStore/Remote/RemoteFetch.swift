internal import KVCodec
internal import KVCore
internal import KVRemote

/// One look-up and the fetch of what it finds, on a thread of the tier's.
///
/// Chunks come in the order in which a restore wants them, some in flight, and enter by the plan of an offload: a block is found once
/// its checksums, its authentication code and its tokens were compared.
struct RemoteFetch {
  /// How far a prompt's path is here, and how far it is wanted, in leading blocks.
  struct Range {
    var storedBlockCount: Int
    /// Of these, what is of use: where sections are needed, up to the last place that has them.
    var usableBlockCount: Int
    var blockCount: Int
  }

  private let tier: RemoteTier
  private let core: StoreCore
  private let namespace: NamespaceCore
  private let remote: RemoteNamespace
  private let prompt: Prompt
  private let range: Range
  /// What has to be at the end of a prefix, if anything.
  var sections: [(core: NamespaceCore, remote: RemoteNamespace)] = []
  /// Purges that had begun when it did: what is purged later does not come in.
  private var purgeCount: UInt64
  /// Who hears how far it is.
  var name: RemoteState.FetchName?
  /// Of the prompt's blocks, as the remote chains them.
  private var keys: [BlockKey] = []
  /// Of the blocks before `digestedBlockCount`.
  private var digest = PrefixDigest()
  private var digestedBlockCount = 0
  private let memory: ChunkMemory

  /// What one round asks: in one flight to each node, and small beside the chunks.
  private static let questionCountMax = 512
  /// The same of sections, which may be at each block's end.
  private static let sectionQuestionCountMax = 4096
  /// Places that have all sections, and are tried one after the other when what is needed for them does not come.
  private static let placeCountMax = 4
  /// Of chunks in flight, or one chunk; as many may be waiting to be taken.
  private static let windowByteCountMax = 16 << 20
  private static let windowChunkCountMax = 8

  init(
    _ tier: RemoteTier,
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ remote: RemoteNamespace,
    _ prompt: Prompt,
    _ range: Range
  ) {
    self.tier = tier
    self.core = core
    self.namespace = namespace
    self.remote = remote
    self.prompt = prompt
    self.range = range
    purgeCount = tier.purges.begunCount
    memory = ChunkMemory(byteCount: remote.chunkByteCountMax)
  }

  mutating func run() {
    guard !tier.cancellation.isCancelled else { return }
    guard !tier.purges.holdsBack(remote) else { return noteMiss(.absent) }
    tier.state.withLock { $0.statistics.lookUps += 1 }
    chainKeys()
    noteAsked()
    do throws(RemoteError) {
      for (core, remote) in [(namespace, remote)] + sections {
        switch try tier.isSame(remote, of: core, forWriting: false) {
        case .same: break
        case .other: return noteMiss(.identity)
        case .absent, .unknown: return noteMiss(.absent)
        }
      }
      if sections.isEmpty { try runPlain() } else { try runWithSections() }
    } catch {
      noteMiss(RemoteStatistics.Cause(error))
    }
  }

  private mutating func runPlain() throws(RemoteError) {
    let found = try find(
      remote.chunks(after: range.storedBlockCount, through: range.blockCount)
    )
    noteFound(through: found.last?.upperBound ?? 0)
    if found.isEmpty { noteMiss(.absent) }
    _ = fetch(found[...])
  }

  private func noteFound(through blockCount: Int) {
    guard let name else { return }
    tier.state.withLock {
      $0.noteFound(name, blockCount: max(0, blockCount - range.storedBlockCount))
    }
  }

  // MARK: With sections

  /// A place with all sections is looked for as far as the chunks reach, and what is before it comes first: a section alone is of no use.
  private mutating func runWithSections() throws(RemoteError) {
    let size = remote.blocksPerChunk
    let whole = try find(
      remote.chunks(after: range.storedBlockCount, through: range.blockCount / size * size)
    )
    let reach = max(range.storedBlockCount, whole.last?.upperBound ?? 0)
    // Behind it may be parts of one more chunk.
    let last = min(range.blockCount, (reach / size + 1) * size - 1)
    guard last > range.usableBlockCount else { return noteMiss(.absent) }
    let digests = namespace.sectionDigests(of: prompt, upTo: last)
    let places = try placesWithSections(range.usableBlockCount + 1...last, digests)
    noteFound(through: places.first ?? 0)
    if places.isEmpty { return noteMiss(.absent) }
    var here = range.storedBlockCount
    for place in places.prefix(Self.placeCountMax) where !tier.cancellation.isCancelled {
      here = max(here, fetch(remote.chunks(after: here, through: place)[...]))
      guard here >= place else { continue }
      if fetchSections(digests.digest(ofBlocks: place)) { return }
    }
  }

  /// Ends of blocks at which all sections are there, as a hint, the last ones first.
  private func placesWithSections(
    _ places: ClosedRange<Int>,
    _ digests: SectionDigests
  ) throws(RemoteError) -> [Int] {
    let count = max(1, Self.sectionQuestionCountMax / sections.count)
    var rest = places.reversed()[...]
    while !rest.isEmpty {
      let asked = Array(rest.prefix(count))
      rest = rest.dropFirst(count)
      var names: [RemoteName] = []
      for place in asked {
        for section in sections {
          let key = Self.key(of: digests.digest(ofBlocks: place), section.remote)
          names.append(section.remote.chunkName(key))
        }
      }
      let answers = try ask(names)
      let found = asked.enumerated().filter { index, _ in
        answers[index * sections.count..<(index + 1) * sections.count].allSatisfy(\.self)
      }
      if !found.isEmpty { return found.map(\.element) }
    }
    return []
  }

  private static func key(of digest: [UInt8], _ section: RemoteNamespace) -> BlockKey {
    unsafe digest.withUnsafeBytes { words in
      unsafe section.chain.key(
        after: section.chain.rootKey,
        words: words.baseAddress.unsafelyUnwrapped,
        extra: UnsafeRawBufferPointer(start: nil, count: 0)
      )
    }
  }

  /// False when one of them did not come.
  private func fetchSections(_ digest: [UInt8]) -> Bool {
    for section in sections {
      var count = 0
      do throws(StoreError) {
        try Prompt.with(wordsOfDigest(digest)) { (prompt) throws(StoreError) in
          var fetch = RemoteFetch(
            tier,
            core,
            section.core,
            section.remote,
            prompt,
            Range(storedBlockCount: 0, usableBlockCount: 0, blockCount: 1)
          )
          fetch.purgeCount = purgeCount
          fetch.chainKeys()
          count = fetch.fetch([0..<1])
        }
      } catch {
        return false
      }
      guard count == 1 else { return false }
    }
    return true
  }

  private func noteMiss(_ cause: RemoteStatistics.Cause) {
    tier.state.withLock { $0.noteMiss(name, cause) }
  }

  /// For people: which path is asked about, by the last block of its first chunk as the store itself names it.
  private func noteAsked() {
    let first = remote.chunks(after: range.storedBlockCount, through: range.blockCount).first
    guard let name, let blockCount = first?.upperBound else { return }
    var blockKey = keys.indices.contains(blockCount - 1) ? keys[blockCount - 1] : nil
    if namespace.chain.rootKey != remote.chain.rootKey {
      var cursor = ChainCursor(namespace.chain, prompt)
      for _ in 0..<blockCount { blockKey = cursor.next()?.key }
    }
    guard let blockKey else { return }
    tier.state.withLock { $0.noteAsked(name, blockCount: blockCount, blockKey) }
  }

  private mutating func chainKeys() {
    keys.reserveCapacity(range.blockCount)
    var cursor = ChainCursor(remote.chain, prompt)
    while keys.count < range.blockCount, let link = cursor.next() { keys.append(link.key) }
  }

  private func chunkName(_ chunk: Swift.Range<Int>) -> RemoteName {
    remote.chunkName(keys[chunk.upperBound - 1])
  }

  private func known(_ chunk: Swift.Range<Int>) -> BlockKey {
    remote.known(keys[chunk.upperBound - 1])
  }

  // MARK: Looking up

  /// The leading chunks that are there, as a hint.
  private func find(_ chunks: [Swift.Range<Int>]) throws(RemoteError) -> [Swift.Range<Int>] {
    var plan = LookUpPlan(chunkCount: chunks.count, questionCountMax: Self.questionCountMax)
    while !plan.questions.isEmpty {
      plan.take(try ask(plan.questions.map { chunkName(chunks[$0]) }))
    }
    tier.state.withLock { $0.statistics.chunksFound += UInt64(plan.foundCount) }
    return Array(chunks.prefix(plan.foundCount))
  }

  /// One round of questions.
  private func ask(_ names: [RemoteName]) throws(RemoteError) -> [Bool] {
    let started = monotonicNanoseconds()
    let answers = try tier.call { (objects) throws(RemoteError) in
      try objects.exist(names, deadline: tier.lookUpDeadline)
    }
    guard answers.count == names.count else { throw .protocolViolation("answers") }
    tier.state.withLock { state in
      state.noteRound(nanoseconds: monotonicNanoseconds() - started)
      state.statistics.lookUpRounds += 1
    }
    return answers
  }

  // MARK: Fetching

  /// Brings chunks, a few at a time; returns past the last block that came, 0 when none did.
  private mutating func fetch(_ chunks: ArraySlice<Swift.Range<Int>>) -> Int {
    let payloadByteCount = remote.blocksPerChunk * remote.identity.payloadByteCountMax
    let byteCountMax = max(
      min(Self.windowByteCountMax, core.effectiveHostBytes / 16),
      payloadByteCount
    )
    let count = min(Self.windowChunkCountMax, max(1, byteCountMax / max(1, payloadByteCount)))
    var rest = chunks
    var end = 0
    var coming = nextWindow(&rest, count, payloadByteCount)
    while let window = coming {
      let objects = window.wait()
      // The next ones are on their way while these are checked and copied. Those that stop here are dropped when they have come.
      coming =
        objects.allSatisfy { $0 != nil }
        ? nextWindow(&rest, count, payloadByteCount) : nil
      for (chunk, object) in zip(window.chunks, objects) {
        guard let object, take(object, chunk) else { return end }
        end = chunk.upperBound
      }
    }
    return end
  }

  /// Starts to bring the next chunks; nil when there are none, or no more may come.
  private func nextWindow(
    _ rest: inout ArraySlice<Swift.Range<Int>>,
    _ count: Int,
    _ payloadByteCount: Int
  ) -> RemoteWindow? {
    guard !rest.isEmpty, !tier.cancellation.isCancelled else { return nil }
    let chunks = Array(rest.prefix(count))
    rest = rest.dropFirst(count)
    // What is written to disk for it, nobody waits for.
    guard core.maySpend(chunks.count * payloadByteCount) else {
      noteMiss(.noRoom)
      return nil
    }
    return RemoteWindow(
      tier,
      chunks,
      names: chunks.map(chunkName),
      known: chunks.map(known),
      in: memory,
      of: name
    )
  }

  // MARK: Taking

  /// Checks a chunk and lets its blocks in; false where the path ends.
  private mutating func take(_ object: RemoteWindow.Object, _ chunk: Swift.Range<Int>) -> Bool {
    let bytes = unsafe UnsafeRawBufferPointer(object.bytes)
    do throws(ChunkFlaw) {
      let view = try unsafe ChunkView(bytes)
      try check(view, chunk)
      tier.state.withLock { state in
        state.statistics.chunksFetched += 1
        state.statistics.bytesFetched += UInt64(bytes.count)
        state.known.insert(known(chunk), now: monotonicNanoseconds())
      }
      guard tier.purges.beginEntering(remote, since: purgeCount) else {
        noteMiss(.absent)
        return false
      }
      defer { tier.purges.endEntering() }
      return try enter(view, chunk)
    } catch {
      noteMiss(RemoteStatistics.Cause(error))
      tier.remove(chunkName(chunk))
      return false
    }
  }

  private mutating func check(
    _ view: ChunkView,
    _ blocks: Swift.Range<Int>
  ) throws(ChunkFlaw) {
    try view.check(remote, blocks: blocks, now: core.time.now())
    // A chunk that ends earlier than one before it was tried.
    if digestedBlockCount > blocks.upperBound { (digest, digestedBlockCount) = (.init(), 0) }
    while digestedBlockCount < blocks.upperBound,
      let block = namespace.block(digestedBlockCount, of: prompt)
    {
      unsafe digest.append(words: block.wordBytes, extra: block.extra)
      digestedBlockCount += 1
    }
    let parentKey = blocks.lowerBound == 0 ? remote.chain.rootKey : keys[blocks.lowerBound - 1]
    guard digestedBlockCount == blocks.upperBound,
      view.isOf(path: parentKey, prefixDigest: digest.bytes)
    else { throw .tokens }
    for (index, number) in blocks.enumerated() {
      guard let block = namespace.block(number, of: prompt),
        unsafe view.isBlock(index, keys[number], words: block.wordBytes, extra: block.extra)
      else { throw .tokens }
    }
    try view.checkPayload()
  }

  /// Offloads the chunk's blocks; false when not all of them are stored then.
  private func enter(
    _ view: ChunkView,
    _ chunk: Swift.Range<Int>
  ) throws(ChunkFlaw) -> Bool {
    var decoded: [RemoteWindow.Object] = []
    var spans: [TransferSpan] = []
    spans.reserveCapacity(view.blocks.count * view.regionCount)
    for block in view.blocks {
      var payload = unsafe view.rawPayload(of: block)
      if unsafe payload == nil {
        let object = RemoteWindow.Object(block.rawByteCount)
        decoded.append(object)
        guard let decoder = FrameDecoder() else { return false }
        try unsafe view.decode(block, decoder, into: object.bytes)
        unsafe payload = UnsafeRawBufferPointer(object.bytes)
      }
      var offset = 0
      for region in 0..<view.regionCount {
        let count = view.region(region, of: block).rawByteCount
        unsafe spans.append(
          TransferSpan(
            // An offload only reads.
            data: UnsafeMutableRawPointer(
              mutating: payload?.baseAddress.map { unsafe $0 + offset }
            ),
            capacity: count,
            length: count
          )
        )
        offset += count
      }
    }
    let life = timeToLive(of: view)
    let result: TransferResult? = withExtendedLifetime(decoded) {
      unsafe spans.withUnsafeMutableBufferPointer { spans in
        unsafe offload(chunk, spans, life)
      }
    }
    guard let result, result.doneBlockCount == view.blocks.count else {
      noteMiss(.noRoom)
      return false
    }
    tier.state.withLock { state in
      state.statistics.blocksFetched += UInt64(result.hostBlockCount)
      if let name { state.noteFetched(name, blockCount: view.blocks.count) }
    }
    return true
  }

  @unsafe private func offload(
    _ blocks: Swift.Range<Int>,
    _ spans: UnsafeMutableBufferPointer<TransferSpan>,
    _ timeToLive: TimeToLive?
  ) -> TransferResult? {
    let range = unsafe NamespaceCore.Range(
      blocks: blocks,
      regions: 0..<namespace.regionCount,
      selection: namespace.wholeBlocks,
      spans: spans,
      coversAllRegions: true,
      timeToLive: timeToLive
    )
    let limit = TransferLimit(deadline: tier.transferDeadline, cancellation: tier.cancellation)
    var call = OffloadCall(core, namespace, prompt, range, limit, for: tier.ledger)
    call.isAdmitted = true
    do throws(StoreError) { return try call.offload() } catch { return nil }
  }

  /// What is left of the life that the chunk's blocks have; nil = the namespace's default.
  private func timeToLive(of view: ChunkView) -> TimeToLive? {
    if view.endOfLife > 0 {
      let now = core.time.now()
      return .absolute(nanoseconds: max(1, view.endOfLife - min(now, view.endOfLife)))
    }
    return view.idleLife > 0 ? .idle(nanoseconds: view.idleLife) : nil
  }
}
