internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVPolicy
internal import KVRemote

/// Brings chunks of a stored path to the other side, on the tier's sending thread: after the local commit, existence first.
struct RemoteSend {
  private let tier: RemoteTier
  private let core: StoreCore
  private let namespace: NamespaceCore
  private let remote: RemoteNamespace
  private var path: StoredPath
  private var keys: [BlockKey] = []
  /// Of the path's blocks before `digestedBlockCount`.
  private var digest = PrefixDigest()
  private var digestedBlockCount = 0

  /// So many of its pauses nothing is written after it said that it is full, or that we may not.
  private static let pauseFactor: UInt64 = 30

  init(
    _ tier: RemoteTier,
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ remote: RemoteNamespace
  ) {
    self.tier = tier
    self.core = core
    self.namespace = namespace
    self.remote = remote
    path = StoredPath(namespace)
  }

  /// Sends what is not there yet of some chunks of the path that ends at a block.
  ///
  /// A section is of use only behind its whole prefix: what is missing of that goes before it, shorter chunks included.
  ///
  /// - Returns: whether all of them are there now.
  @discardableResult
  mutating func run(
    to position: BlockPosition,
    blockCount: Int,
    chunks: [Range<Int>]
  ) -> Bool {
    let isPaused = tier.state.withLock { monotonicNanoseconds() < $0.pausedUntil }
    guard !isPaused else { return noteDrop(.full, chunks.count) }
    do throws(StoreError) {
      guard try readPath(to: position, blockCount: blockCount) else {
        return noteDrop(.gone, chunks.count)
      }
    } catch {
      return noteDrop(.gone, chunks.count)
    }
    if let prefix = tier.prefix(behindWhich: namespace, words: path.words) { send(prefix) }
    do throws(RemoteError) {
      guard try tier.isSame(remote, of: namespace, forWriting: true) == .same else {
        return noteDrop(.identity, chunks.count)
      }
      let missing = try missing(chunks)
      var areThere = true
      for chunk in missing where !tier.cancellation.isCancelled {
        if try !send(chunk) { areThere = false }
      }
      return areThere && !tier.cancellation.isCancelled
    } catch {
      noteDrop(RemoteStatistics.Cause(error), 1)
      guard error == .full || error == .unauthorized else { return false }
      let until = KVCore.deadline(
        after: tier.configuration.pauseNanoseconds * Self.pauseFactor
      )
      tier.state.withLock { state in
        state.pausedUntil = until
        state.pauseCause = RemoteStatistics.Cause(error)
      }
      return false
    }
  }

  private func send(_ prefix: RemoteState.SectionPrefix) {
    let owner = prefix.owner
    guard let remote = tier.namespace(owner, keyBitCount: core.configuration.keyBitCount) else {
      return
    }
    let position = try? core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.find(owner.id, prefix.lastKey)
    }
    // It is not stored yet, or not any more: the section goes alone, and counts with whatever of the prefix is there.
    guard let position = position ?? nil else { return }
    var send = RemoteSend(tier, core, owner, remote)
    send.run(
      to: position,
      blockCount: prefix.blockCount,
      chunks: remote.chunks(after: 0, through: prefix.blockCount)
    )
  }

  /// False, for who returns what it says.
  @discardableResult
  private func noteDrop(_ cause: RemoteStatistics.Cause, _ count: Int) -> Bool {
    tier.state.withLock { $0.statistics.noteDrop(cause, count: count) }
    return false
  }

  /// The path with its keys there; false when it is another one by now.
  private mutating func readPath(
    to position: BlockPosition,
    blockCount: Int
  ) throws(StoreError) -> Bool {
    let last = tier.paths.withLock { path in
      defer { path = nil }
      return path
    }
    // Blocks that left and came again since may be others.
    for known in [last, nil] {
      if let known, known.namespace == namespace.id {
        path = known
      } else {
        path = StoredPath(namespace)
      }
      guard try path.read(core, to: position), path.blocks.count == blockCount else { continue }
      try chainKeys()
      guard keys.count == blockCount else { continue }
      let kept = path
      tier.paths.withLock { $0 = kept }
      return true
    }
    return false
  }

  /// The remote's keys; none when the stored ones do not follow from the words.
  private mutating func chainKeys() throws(StoreError) {
    let blockCount = path.blocks.count
    keys = []
    let (own, theirs) = try path.withPrompt { (prompt) throws(StoreError) in
      var own = ChainCursor(namespace.chain, prompt)
      var theirs = ChainCursor(remote.chain, prompt)
      var keys: [BlockKey] = []
      keys.reserveCapacity(blockCount)
      let isSame = namespace.chain.rootKey == remote.chain.rootKey
      while let link = own.next() {
        guard let key = isSame ? link.key : theirs.next()?.key else { break }
        keys.append(key)
      }
      return (own.parentKey, keys)
    }
    if own == path.blocks.last?.blockKey { keys = theirs }
  }

  private func lastKey(_ chunk: Range<Int>) -> BlockKey { keys[chunk.upperBound - 1] }

  /// Of the chunks, those that are not there; those that are get their time anew where uses prolong it.
  private func missing(_ chunks: [Range<Int>]) throws(RemoteError) -> [Range<Int>] {
    let unknown = tier.state.withLock { state in
      chunks.filter { !state.known.contains(remote.known(lastKey($0))) }
    }
    let names = unknown.map { remote.chunkName(lastKey($0)) }
    var missing: [Range<Int>] = []
    if !names.isEmpty {
      let answers = try tier.call { (objects) throws(RemoteError) in
        try objects.exist(names, deadline: tier.lookUpDeadline)
      }
      guard answers.count == names.count else { throw .protocolViolation("answers") }
      let now = monotonicNanoseconds()
      tier.state.withLock { state in
        for (chunk, isThere) in zip(unknown, answers) {
          if isThere {
            state.statistics.chunksExisted += 1
            state.known.insert(remote.known(lastKey(chunk)), now: now)
          } else {
            missing.append(chunk)
          }
        }
      }
    }
    try prolong(chunks.filter { !missing.contains($0) })
    return missing
  }

  private func prolong(_ chunks: [Range<Int>]) throws(RemoteError) {
    var names: [UInt64: [RemoteName]] = [:]
    for chunk in chunks {
      let life = life(of: chunk)
      guard life.end == 0, life.idle > 0 else { continue }
      names[life.idle / 1_000_000, default: []].append(remote.chunkName(lastKey(chunk)))
    }
    for (milliseconds, names) in names where milliseconds > 0 {
      try tier.call { (objects) throws(RemoteError) in
        try objects.extend(
          names,
          timeToLiveMilliseconds: milliseconds,
          deadline: tier.lookUpDeadline
        )
      }
    }
  }

  /// That of the chunk's block that ends first: an end, and nanoseconds after a use; 0 = none.
  private func life(of chunk: Range<Int>) -> (end: UInt64, idle: UInt64) {
    var end: UInt64 = 0
    var idle: UInt64 = 0
    for block in path.blocks[chunk] where block.expiry > 0 {
      if block.isIdle {
        idle = idle == 0 ? block.expiry : min(idle, block.expiry)
      } else {
        end = end == 0 ? block.expiry : min(end, block.expiry)
      }
    }
    return (end, idle)
  }

  // MARK: One chunk

  /// False for one that was dropped.
  private mutating func send(_ chunk: Range<Int>) throws(RemoteError) -> Bool {
    let byteCount = chunk.count * remote.identity.payloadByteCountMax
    let now = monotonicNanoseconds()
    guard tier.state.withLock({ $0.budget.maySpend(byteCount, now: now) }) else {
      return noteDrop(.budget, 1)
    }
    let made: (ChunkWriter, [[Int]])?
    do throws(StoreError) {
      let path = path
      made = try path.withPrompt { (prompt) throws(StoreError) in try copyOut(chunk, prompt) }
    } catch {
      made = nil
    }
    guard let (writer, regionByteCounts) = made else { return noteDrop(.gone, 1) }
    let life = life(of: chunk)
    let timeToLive = timeToLive(life)
    guard timeToLive != 0,
      let object = unsafe writer.seal(
        regionByteCounts: regionByteCounts,
        endOfLife: life.end,
        idleLife: life.idle,
        encodedAs: format(of: writer, regionByteCounts)
      )
    else { return noteDrop(.expired, 1) }
    let outcome = try tier.call { (objects) throws(RemoteError) in
      try unsafe objects.putIfAbsent(
        remote.chunkName(lastKey(chunk)),
        pieces: [object],
        timeToLiveMilliseconds: timeToLive,
        deadline: tier.transferDeadline
      )
    }
    let sentByteCount = object.count
    withExtendedLifetime(writer) {}
    tier.state.withLock { state in
      state.known.insert(remote.known(lastKey(chunk)), now: now)
      switch outcome {
      case .stored:
        state.statistics.chunksSent += 1
        state.statistics.bytesSent += UInt64(sentByteCount)
      case .existed: state.statistics.chunksExisted += 1
      }
    }
    return true
  }

  /// How payloads are encoded; found out by the first block of the namespace that is sent.
  private func format(of writer: ChunkWriter, _ regionByteCounts: [[Int]]) -> PayloadFormat? {
    guard tier.configuration.encoding == .frames else { return nil }
    if let known = tier.state.withLock({ $0.format(of: namespace.id) }) { return known }
    // States are whatever an engine makes of them.
    let element =
      remote.identity.sideSection == nil
      ? ElementType(name: remote.identity.kvDtype) ?? .opaque : .opaque
    let sample = unsafe writer.firstPayload(regionByteCounts)
    let format = unsafe PayloadFormat.detect(sample, element)
    tier.state.withLock { $0.noteFormat(format, of: namespace.id) }
    return format
  }

  /// What the object lives for, in milliseconds; nil = without an end, 0 = not at all.
  private func timeToLive(_ life: (end: UInt64, idle: UInt64)) -> UInt64? {
    var lives: [UInt64] = []
    if life.end > 0 {
      let now = core.time.now()
      lives.append(life.end > now ? (life.end - now) / 1_000_000 : 0)
    }
    if life.idle > 0 { lives.append(life.idle / 1_000_000) }
    let seconds = tier.configuration.timeToLiveSeconds
    return lives.min() ?? (seconds > 0 ? UInt64(seconds) * 1000 : nil)
  }

  /// Has the digest of so many leading blocks; goes on from the chunk before, as a rule.
  private mutating func digestBlocks(upTo end: Int, _ prompt: Prompt) -> Bool {
    if end < digestedBlockCount { (digest, digestedBlockCount) = (PrefixDigest(), 0) }
    while digestedBlockCount < end {
      guard let block = namespace.block(digestedBlockCount, of: prompt) else { return false }
      unsafe digest.append(words: block.wordBytes, extra: block.extra)
      digestedBlockCount += 1
    }
    return true
  }

  /// Restores the chunk's blocks to where they lie in the object; nil when they are not all there.
  private mutating func copyOut(
    _ blocks: Range<Int>,
    _ prompt: Prompt
  ) throws(StoreError) -> (ChunkWriter, [[Int]])? {
    let count = blocks.count
    let wordsPerBlock = namespace.wordsPerBlock
    guard digestBlocks(upTo: blocks.upperBound, prompt) else { return nil }
    let made = ChunkWriter(
      remote,
      firstBlock: blocks.lowerBound,
      parentKey: blocks.lowerBound == 0 ? remote.chain.rootKey : keys[blocks.lowerBound - 1],
      prefixDigest: digest.bytes,
      blocks.map { number in
        ChunkWriter.Block(
          blockKey: keys[number],
          words: Array(path.words[number * wordsPerBlock..<(number + 1) * wordsPerBlock]),
          extra: path.blocks[number].extra
        )
      }
    )
    guard let writer = made else { return nil }
    var spans: [TransferSpan] = []
    let regionCount = namespace.regionCount
    for index in 0..<count {
      for region in 0..<regionCount {
        let memory = unsafe writer.region(region, ofBlock: index)
        unsafe spans.append(
          TransferSpan(data: memory.baseAddress, capacity: memory.count, length: 0)
        )
      }
    }
    let limit = TransferLimit(deadline: tier.transferDeadline, cancellation: tier.cancellation)
    let result = try unsafe spans.withUnsafeMutableBufferPointer {
      (spans) throws(StoreError) -> TransferResult in
      let range = unsafe NamespaceCore.Range(
        blocks: blocks,
        regions: 0..<regionCount,
        selection: namespace.wholeBlocks,
        spans: spans,
        coversAllRegions: true
      )
      var call = RestoreCall(core, namespace, prompt, range, to: .memory, limit)
      return try call.copyOut()
    }
    guard result.doneBlockCount == count else { return nil }
    let regionByteCounts = (0..<count).map { index in
      (0..<regionCount).map { spans[index * regionCount + $0].length }
    }
    return (writer, regionByteCounts)
  }
}
