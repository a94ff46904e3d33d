internal import KVCore
internal import KVIndex

/// How far a call has come along its prompt's path in the index, for its next look to go on from there.
///
/// It is given up, and the walk begins at the root, when any location of the index may have changed since.
struct PathMark {
  var location = IndexLocation.root
  /// Blocks down to there.
  var blockCount = 0
  /// `PrefixIndex.layoutVersion` of then.
  var layoutVersion: UInt64 = 0
}

/// The longest prefix of a prompt that the index has, after loading what the catalog has more of it.
struct StoredPrefix {
  var end: PathMark
  /// Where the segments begin: 0, unless the look went on from a mark.
  var firstBlock: Int
  var segments: [IndexSegment]

  var location: IndexLocation { end.location }
  var blockCount: Int { end.blockCount }
}

extension PrefixIndex {
  /// Goes along a prompt's path, from the root or from a mark that still holds.
  ///
  /// - Returns: how far the index has it, and where `segments` begin.
  func walk(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    blockCount: Int,
    after mark: PathMark,
    touch: Bool,
    segments: inout [IndexSegment]
  ) -> (end: PathMark, firstBlock: Int) {
    let holds = mark.layoutVersion == layoutVersion && mark.blockCount <= blockCount
    var end = holds ? mark : PathMark()
    end.layoutVersion = layoutVersion
    let firstBlock = end.blockCount
    segments.removeAll(keepingCapacity: true)
    guard let words = unsafe prompt.words else { return (end, firstBlock) }
    let extra: ExtraBytesAccessor? =
      unsafe prompt.extra.isEmpty ? nil : { unsafe prompt.extraBytes(ofBlock: firstBlock + $0) }
    let match = unsafe match(
      namespace.id,
      words: words + firstBlock * namespace.wordsPerBlock,
      blockCount: blockCount - firstBlock,
      extra: extra,
      after: end.location,
      touch: touch,
      segments: &segments
    )
    end.location = match.location
    end.blockCount += match.matchedBlockCount
    return (end, firstBlock)
  }

  /// Adds a block of a prompt behind `parent`.
  func append(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    _ block: PromptBlock,
    entry: IndexEntry,
    at place: BlockPosition? = nil
  ) -> IndexAppendResult? {
    guard let words = unsafe block.words.baseAddress else { return nil }
    return unsafe append(
      namespace,
      after: parent,
      words: words,
      extra: block.extra,
      entry: entry,
      at: place
    )
  }
}
