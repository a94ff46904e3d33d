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
