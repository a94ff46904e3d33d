/// Which blocks leave when there is no room: of those that may, and of the lowest priority.
public enum EvictionPolicy: Int, CaseIterable, Sendable {
  /// The least recently used.
  case lru
  /// Those of which the fewest hits are expected for the time that they would be kept, as learned while running.
  ///
  /// Where that finds less than least recently used would, it gives way to it for a while.
  case density
}
