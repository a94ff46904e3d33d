/// What is known of a use of a path end, where eviction learns from uses.
enum PathUse: Equatable {
  case unknown
  case noted(NotedUse)
  /// By the stamp that the learner gave it.
  case learned(UInt64)
}

/// A use of a prefix as it is noted by whoever was called: the learner hears of it on the writer's thread.
struct NotedUse: Equatable {
  /// The lower half of the key of the prefix's last block.
  var key: UInt64
  var blockCount: Int
  var timeMilliseconds: Int64
  /// A prompt was asked for; else blocks of one that was asked for before go on from here.
  var isRequest: Bool
}
