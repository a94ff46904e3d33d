package import KVCore
package import KVRemote

/// Which blocks go to the remote tier.
public enum RemoteWrites: Int, Sendable, CaseIterable {
  /// None: what others wrote is read.
  case off
  /// Those that a second request used.
  case reused
  /// All, when they are on disk.
  case all
}

/// How payloads are sent to the remote tier.
public enum RemoteEncoding: Int, Sendable, CaseIterable {
  /// As they are.
  case raw
  /// In frames of the lossless codec, where that is shorter: fewer bytes there and on the way, for CPU time.
  case frames
}

/// A store's remote tier: an engine outside this machine that other stores use as well (docs/remote.md).
public struct RemoteConfiguration: Sendable {
  /// Where it is; empty = there is none.
  public var url: String = ""
  /// A file (0600) with what the server wants to be told; empty = nothing.
  public var credentialsFile: String = ""
  /// Certificates of those who may vouch for the server; empty = the system's.
  public var caFile: String = ""
  /// A file (0600) with the key that all machines share; empty = none, and namespaces with a salt stay local.
  public var keyFile: String = ""
  /// What is written there.
  public var writes = RemoteWrites.reused
  /// How payloads are sent; what others sent is read either way.
  public var encoding = RemoteEncoding.raw
  /// Whether blocks that are about to leave disk and archive by eviction are sent as well.
  public var demotes = false
  /// The most that is written in a day, in the mean, and up to a 24th of it at once; 0 = no bound.
  public var writeBytesPerDay: Int = 0
  /// How long objects live there whose blocks have no end of their own, in seconds; 0 = until the server evicts them.
  public var timeToLiveSeconds: Int = 0
  /// Whether every match that is no peek may look there; else those that ask for it.
  public var matchesAlways = false
  /// How long a look-up may take, connecting included, in nanoseconds.
  ///
  /// No call of an engine waits for it.
  public var lookUpTimeoutNanoseconds: UInt64 = 250_000_000
  /// How long a transfer of some chunks may take, in nanoseconds.
  public var transferTimeoutNanoseconds: UInt64 = 2_000_000_000
  /// In place of a client for the URL; for tests.
  package var objects: (any RemoteObjects)?
  /// In place of the key file's contents; for tests.
  package var key: [UInt8]?
  /// In place of what follows from the size of blocks; for tests.
  package var blocksPerChunk: Int?
  /// Before the first probe of one that failed, and before a look-up is made again; shorter in tests.
  package var pauseNanoseconds: UInt64 = 1_000_000_000

  /// No remote tier.
  public init() {}

  package var isConfigured: Bool { !url.isEmpty || objects != nil }

  package func validate() throws(StoreError) {
    for text in [url, credentialsFile, caFile, keyFile] {
      guard !text.utf8.contains(0), text.utf8.count <= 4096 else {
        throw .invalidArgument(.remote)
      }
    }
    guard writeBytesPerDay >= 0, (0...1 << 32).contains(timeToLiveSeconds),
      (1_000_000...60_000_000_000).contains(lookUpTimeoutNanoseconds),
      (1_000_000...600_000_000_000).contains(transferTimeoutNanoseconds)
    else { throw .invalidArgument(.remote) }
  }
}
