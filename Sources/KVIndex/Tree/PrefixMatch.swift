/// How far a prompt is in the index.
package struct PrefixMatch: Hashable, Sendable {
  /// The last matched block; where the search began when nothing matched.
  package var location: IndexLocation
  /// Blocks matched, counted from where the search began.
  package var matchedBlockCount: Int

  package init(location: IndexLocation, matchedBlockCount: Int) {
    self.location = location
    self.matchedBlockCount = matchedBlockCount
  }
}
