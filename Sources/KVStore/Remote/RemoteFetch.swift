internal import KVCodec
internal import KVCore
internal import KVRemote

/// One look-up and the fetch of what it finds, on a thread of the tier's.
///
/// Chunks come in the order in which a restore wants them, some in flight, and enter by the plan of an offload: a block is found once
/// its checksums, its authentication code and its tokens were compared.
struct RemoteFetch {
  private let tier: RemoteTier
  private let core: StoreCore
  private let namespace: NamespaceCore
  private let remote: RemoteNamespace
  private let prompt: Prompt
  private let name: RemoteState.FetchName
  private let storedBlockCount: Int
  /// Of the prompt's blocks, as the remote chains them.
  private var keys: [BlockKey] = []
  /// Of the blocks before `digestedBlockCount`.
  private var digest = PrefixDigest()
  private var digestedBlockCount = 0

  /// What one round asks: in one flight to each node, and small beside the chunks.
  private static let questionCountMax = 512
  /// Of chunks in flight, or one chunk.
  private static let windowByteCountMax = 16 << 20
  private static let windowChunkCountMax = 8

  init(
    _ tier: RemoteTier,
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ remote: RemoteNamespace,
    _ prompt: Prompt,
    _ name: RemoteState.FetchName,
    _ storedBlockCount: Int
  ) {
    self.tier = tier
    self.core = core
    self.namespace = namespace
    self.remote = remote
    self.prompt = prompt
    self.name = name
    self.storedBlockCount = storedBlockCount
  }

  mutating func run() {
    guard !tier.cancellation.isCancelled else { return }
    tier.state.withLock { $0.statistics.lookUps += 1 }
    let blocksPerChunk = remote.blocksPerChunk
    let first = storedBlockCount / blocksPerChunk
    let chunks = first..<name.blockCount / blocksPerChunk
    do throws(RemoteError) {
      switch try tier.isSame(remote, of: namespace, forWriting: false) {
      case .same: break
      case .other:
        return noteMiss(.identity)
      case .absent, .unknown:
        return noteMiss(.absent)
      }
      chainKeys()
      let found = try find(chunks)
      tier.state.withLock { state in
        state.statistics.chunksFound += UInt64(found.count)
        let blocks = found.upperBound * blocksPerChunk - storedBlockCount
        state.noteFound(name, blockCount: found.isEmpty ? 0 : blocks)
      }
      if found.isEmpty { noteMiss(.absent) }
      _ = try fetch(found)
    } catch {
      noteMiss(RemoteStatistics.Cause(error))
    }
  }

  private func noteMiss(_ cause: RemoteStatistics.Cause) {
    tier.state.withLock { $0.statistics.noteMiss(cause) }
  }

  private mutating func chainKeys() {
    keys.reserveCapacity(name.blockCount)
    var cursor = ChainCursor(remote.chain, prompt)
    while keys.count < name.blockCount, let link = cursor.next() { keys.append(link.key) }
  }

  private func chunkName(_ chunk: Int) -> RemoteName {
    remote.chunkName(keys[(chunk + 1) * remote.blocksPerChunk - 1])
  }

  private func known(_ chunk: Int) -> BlockKey {
    remote.known(keys[(chunk + 1) * remote.blocksPerChunk - 1])
  }

  // MARK: Looking up

  /// How many leading chunks are there, as a hint.
  private func find(_ chunks: Range<Int>) throws(RemoteError) -> Range<Int> {
    var plan = LookUpPlan(chunkCount: chunks.count, questionCountMax: Self.questionCountMax)
    while !plan.questions.isEmpty {
      let names = plan.questions.map { chunkName(chunks.lowerBound + $0) }
      let started = monotonicNanoseconds()
      let answers = try tier.call { (objects) throws(RemoteError) in
        try objects.exist(names, deadline: tier.lookUpDeadline)
      }
      guard answers.count == names.count else { throw .protocolViolation("answers") }
      tier.state.withLock { state in
        state.noteRound(nanoseconds: monotonicNanoseconds() - started)
        state.statistics.lookUpRounds += 1
      }
      plan.take(answers)
    }
    return chunks.lowerBound..<chunks.lowerBound + plan.foundCount
  }

  // MARK: Fetching

  /// Memory of one object.
  @safe private final class Object {
    let bytes: UnsafeMutableRawBufferPointer
    init(_ byteCount: Int) {
      unsafe bytes = .allocate(byteCount: byteCount, alignment: 64)
    }
    deinit { unsafe bytes.deallocate() }
  }

  /// Brings chunks, a few at a time; returns past the last one that came.
  private mutating func fetch(_ chunks: Range<Int>) throws(RemoteError) -> Int {
    let payloadByteCount = remote.blocksPerChunk * remote.identity.payloadByteCountMax
    let byteCountMax = max(
      min(Self.windowByteCountMax, core.effectiveHostBytes / 8),
      payloadByteCount
    )
    let count = min(Self.windowChunkCountMax, max(1, byteCountMax / max(1, payloadByteCount)))
    var next = chunks.lowerBound
    while next < chunks.upperBound, !tier.cancellation.isCancelled {
      let window = next..<min(next + count, chunks.upperBound)
      // What is written to disk for it, nobody waits for.
      guard core.maySpend(window.count * payloadByteCount) else {
        noteMiss(.noRoom)
        return next
      }
      let objects = try get(window)
      for (chunk, object) in zip(window, objects) {
        guard let object, take(object, chunk) else { return next }
        next = chunk + 1
      }
    }
    return next
  }

  /// Whole objects, in order; nil for those that did not come.
  private func get(_ chunks: Range<Int>) throws(RemoteError) -> [Object?] {
    let byteCountMax = remote.chunkByteCountMax
    var memories = [Object?](repeating: nil, count: chunks.count)
    var reads = [RemoteRead](repeating: .absent, count: chunks.count)
    let started = monotonicNanoseconds()
    let failure: RemoteError?
    do throws(RemoteError) {
      try tier.call { (objects) throws(RemoteError) in
        try unsafe objects.get(chunks.map(chunkName), deadline: tier.transferDeadline) {
          index,
          byteCount in
          guard memories.indices.contains(index), (1...byteCountMax).contains(byteCount) else {
            return nil
          }
          let object = Object(byteCount)
          memories[index] = object
          return unsafe object.bytes
        } done: { index, read in
          if reads.indices.contains(index) { reads[index] = read }
        }
      }
      failure = nil
    } catch {
      // Those that came before it did come.
      failure = error
    }
    var isLeading = true
    var byteCount = 0
    var isNoted = failure == nil
    for (index, chunk) in chunks.enumerated() {
      switch reads[index] {
      case .whole(let count) where unsafe memories[index]?.bytes.count == count: byteCount += count
      case .whole, .skipped:
        memories[index] = nil
        if isLeading {
          noteMiss(.length)
          tier.remove(chunkName(chunk))
        }
      case .absent:
        memories[index] = nil
        tier.state.withLock { $0.known.remove(known(chunk)) }
        if isLeading { noteMiss(.absent) }
      case .failed(let error):
        memories[index] = nil
        if isLeading {
          noteMiss(RemoteStatistics.Cause(error))
          if failure == nil { tier.note(error) }
          isNoted = true
        }
      }
      if memories[index] == nil { isLeading = false }
    }
    if byteCount > 0 {
      let elapsed = monotonicNanoseconds() - started
      tier.state.withLock { $0.bandwidth.add(byteCount: byteCount, nanoseconds: elapsed) }
    }
    if let failure, !isNoted { noteMiss(RemoteStatistics.Cause(failure)) }
    return memories
  }

  // MARK: Taking

  /// Checks a chunk and lets its blocks in; false where the path ends.
  private mutating func take(_ object: Object, _ chunk: Int) -> Bool {
    let bytes = unsafe UnsafeRawBufferPointer(object.bytes)
    do throws(ChunkFlaw) {
      let view = try unsafe ChunkView(bytes)
      try check(view, chunk)
      tier.state.withLock { state in
        state.statistics.chunksFetched += 1
        state.statistics.bytesFetched += UInt64(bytes.count)
        state.known.insert(known(chunk), now: monotonicNanoseconds())
      }
      return try enter(view, chunk)
    } catch {
      noteMiss(RemoteStatistics.Cause(error))
      tier.remove(chunkName(chunk))
      return false
    }
  }

  private mutating func check(_ view: ChunkView, _ chunk: Int) throws(ChunkFlaw) {
    let blocks = chunk * remote.blocksPerChunk..<(chunk + 1) * remote.blocksPerChunk
    try view.check(remote, firstBlock: blocks.lowerBound, now: core.time.now())
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
  private func enter(_ view: ChunkView, _ chunk: Int) throws(ChunkFlaw) -> Bool {
    let firstBlock = chunk * remote.blocksPerChunk
    var decoded: [Object] = []
    var spans: [TransferSpan] = []
    spans.reserveCapacity(view.blocks.count * view.regionCount)
    for block in view.blocks {
      var payload = unsafe view.rawPayload(of: block)
      if unsafe payload == nil {
        let object = Object(block.rawByteCount)
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
        unsafe offload(firstBlock, view.blocks.count, spans, life)
      }
    }
    guard let result, result.doneBlockCount == view.blocks.count else {
      noteMiss(.noRoom)
      return false
    }
    tier.state.withLock { $0.statistics.blocksFetched += UInt64(result.hostBlockCount) }
    return true
  }

  @unsafe private func offload(
    _ firstBlock: Int,
    _ blockCount: Int,
    _ spans: UnsafeMutableBufferPointer<TransferSpan>,
    _ timeToLive: TimeToLive?
  ) -> TransferResult? {
    let range = unsafe NamespaceCore.Range(
      blocks: firstBlock..<firstBlock + blockCount,
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
