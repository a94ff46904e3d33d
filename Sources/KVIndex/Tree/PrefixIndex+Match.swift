internal import Glibc
package import KVCore

// Unsafe: compares the caller's words with the nodes' as memory, since a prompt of 131,072 tokens
// has to be matched in the time it takes to read it.

extension PrefixIndex {
  /// Finds the longest prefix of `words` that is in the index.
  ///
  /// Whether a block is readable (pending, expired, corrupt) is the caller's to see in its entry.
  /// Computes no block keys. O(blocks compared + nodes on the path).
  ///
  /// `words` are `blockCount × wordsPerBlock` words, those of the blocks behind `start`; `extra` is
  /// nil if no block has extra bytes. Without `touch` it leaves no trace in the order of use.
  /// `segments` is filled with the matched blocks in order.
  package func match(
    _ namespace: NamespaceID,
    words: UnsafePointer<UInt32>,
    blockCount: Int,
    extra: ExtraBytesAccessor? = nil,
    after start: IndexLocation = .root,
    touch: Bool = true,
    segments: inout [IndexSegment]
  ) -> PrefixMatch {
    segments.removeAll(keepingCapacity: true)
    var match = PrefixMatch(location: start, matchedBlockCount: 0)
    guard let wordsPerBlock = namespaces[namespace]?.wordsPerBlock,
      start.isRoot || self.namespace(of: start) == namespace
    else { return match }

    // The node to compare with next; from its block `first` on.
    var next = start.node
    var first = start.isRoot ? 0 : Int(start.local) + 1
    while match.matchedBlockCount < blockCount {
      let matched = match.matchedBlockCount
      if next != .none && first < Int(nodes[next].count) {
        let overlap = min(Int(nodes[next].count) - first, blockCount - matched)
        let count = unsafe commonBlockCount(
          next,
          first,
          words: words + matched * wordsPerBlock,
          overlap,
          extra: extra,
          matched
        )
        if count > 0 {
          let segment = IndexSegment(
            node: next,
            firstLocal: UInt32(truncatingIfNeeded: first),
            blockCount: UInt32(truncatingIfNeeded: count)
          )
          segments.append(segment)
          match.location = segment.location(at: count - 1)
          match.matchedBlockCount += count
        } else if first == 0 {
          break
        }
        if match.matchedBlockCount == blockCount { break }
      }
      let index = match.matchedBlockCount
      guard
        let child = unsafe findChild(
          namespace,
          after: match.location,
          words: words + index * wordsPerBlock,
          wordsPerBlock,
          extra: extra?(index) ?? UnsafeRawBufferPointer(start: nil, count: 0)
        )
      else { break }
      next = child
      first = 0
    }
    if touch { self.touch(match.location) }
    return match
  }

  /// The child node whose first block has these words and extra bytes.
  func findChild(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    words: UnsafePointer<UInt32>,
    _ wordsPerBlock: Int,
    extra: UnsafeRawBufferPointer
  ) -> NodeID? {
    let hash = unsafe fingerprint(
      namespace.rawValue,
      parent,
      words: words,
      wordsPerBlock,
      extra: extra
    )
    return children.find(hash: hash) { id in
      unsafe nodes[id].parent == parent.node && nodes[id].parentLocal == parent.local
        && nodes[id].namespaceID == namespace.rawValue
        && blockEquals(IndexLocation(node: id, local: 0), words: words, extra: extra)
    }
  }

  /// True if the block at this location, which exists, has these words and extra bytes.
  func blockEquals(
    _ location: IndexLocation,
    words: UnsafePointer<UInt32>,
    extra: UnsafeRawBufferPointer
  ) -> Bool {
    let byteCount = nodes[location.node].wordsPerBlock * 4
    return unsafe memcmp(nodes[location.node].words(at: Int(location.local)), words, byteCount) == 0
      && extraEquals(location, extra)
  }

  private func extraEquals(_ location: IndexLocation, _ extra: UnsafeRawBufferPointer) -> Bool {
    guard nodes[location.node].hasExtra, let stored = extraBytes[location] else {
      return extra.count == 0
    }
    return unsafe stored.elementsEqual(extra)
  }

  /// How many of `blockCount` blocks from (`id`, `first`) on equal the caller's.
  private func commonBlockCount(
    _ id: NodeID,
    _ first: Int,
    words: UnsafePointer<UInt32>,
    _ blockCount: Int,
    extra: ExtraBytesAccessor?,
    _ firstExtra: Int
  ) -> Int {
    let wordsPerBlock = nodes[id].wordsPerBlock
    let stored = unsafe nodes[id].words(at: first)
    // 4 KiB at a time: a mismatch costs one chunk read twice, not the whole node.
    let chunkBlockCount = max(1, 1024 / wordsPerBlock)
    var count = 0
    while count < blockCount {
      let chunk = min(chunkBlockCount, blockCount - count)
      let offset = count * wordsPerBlock
      if unsafe memcmp(stored + offset, words + offset, chunk * wordsPerBlock * 4) != 0 { break }
      count += chunk
    }
    while count < blockCount {
      let offset = count * wordsPerBlock
      if unsafe memcmp(stored + offset, words + offset, wordsPerBlock * 4) != 0 { break }
      count += 1
    }
    guard unsafe nodes[id].hasExtra || extra != nil else { return count }
    for index in 0..<count {
      let location = IndexLocation(node: id, local: UInt32(truncatingIfNeeded: first + index))
      let bytes = unsafe extra?(firstExtra + index) ?? UnsafeRawBufferPointer(start: nil, count: 0)
      if unsafe !extraEquals(location, bytes) { return index }
    }
    return count
  }

  // MARK: Fingerprints

  // Multiply-mix over parent, words and extra bytes: it only has to spread; the words prove.

  func fingerprint(ofFirstBlockOf id: NodeID) -> UInt32 {
    let node = nodes[id]
    let extra = node.hasExtra ? extraBytes[IndexLocation(node: id, local: 0)] ?? [] : []
    return unsafe extra.span.withUnsafeBytes { bytes in
      unsafe fingerprint(
        node.namespaceID,
        node.parentLocation,
        words: UnsafePointer(node.words(at: 0)),
        node.wordsPerBlock,
        extra: bytes
      )
    }
  }

  private func fingerprint(
    _ namespaceID: UInt32,
    _ parent: IndexLocation,
    words: UnsafePointer<UInt32>,
    _ wordsPerBlock: Int,
    extra: UnsafeRawBufferPointer
  ) -> UInt32 {
    var hash = mixed(fingerprintSeed, UInt64(namespaceID))
    hash = mixed(hash, UInt64(parent.node.rawValue) << 32 | UInt64(parent.local))
    for index in 0..<wordsPerBlock { hash = unsafe mixed(hash, UInt64(words[index])) }
    for index in 0..<extra.count { hash = unsafe mixed(hash, UInt64(extra[index])) }
    return foldedFingerprint(hash)
  }

  func mixed(_ hash: UInt64, _ value: UInt64) -> UInt64 {
    let product = (hash ^ value) &* 0x9E37_79B9_7F4A_7C15
    return product ^ (product >> 29)
  }

  func foldedFingerprint(_ hash: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: mixed(hash, 0xBF58_476D) >> 32) & fingerprintMask
  }
}
