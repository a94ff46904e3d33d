public import KVCore

/// A look-up in the remote tier, for people.
public struct RemoteLookUp: Sendable, Equatable {
  /// In which namespace.
  public var namespace: NamespaceID
  /// Blocks down to the end of the first chunk that was asked about.
  public var blockCount: Int
  /// Key of the last of these: which path it was.
  public var blockKey: BlockKey
  /// Blocks behind what is stored here that it found.
  public var foundBlockCount = 0
  /// Of these, the ones that came.
  public var fetchedBlockCount = 0
  /// Why it ended before all that was asked for had come; nil when nothing was missing.
  public var cause: RemoteStatistics.Cause?
  /// In nanoseconds of CLOCK_MONOTONIC; 0 while it is under way.
  public var endedAt: UInt64 = 0

  /// So many are remembered.
  static let countMax = 64

  init(namespace: NamespaceID, blockCount: Int, blockKey: BlockKey) {
    self.namespace = namespace
    self.blockCount = blockCount
    self.blockKey = blockKey
  }
}

/// What a process says of its remote tier, a second ago at most.
public struct RemoteReport: Sendable, Equatable {
  /// Where it is, without user and path.
  public var server: String
  /// What is written there.
  public var writes: RemoteWrites
  /// Whether every match may look there; else those that ask for it.
  public var matchesAlways: Bool
  /// Since the open of the store in that process.
  public var statistics: RemoteStatistics
  /// Those under way, then the last ones, the newest first; at most 64.
  public var lookUps: [RemoteLookUp]
}
