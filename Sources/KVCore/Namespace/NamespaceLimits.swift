/// What a namespace may hold.
///
/// Not part of its identity: opening it with other limits changes them.
public struct NamespaceLimits: Sendable, Hashable {
  /// Slot bytes on disk, or payload bytes where the payload lies in the catalog; 0 = no bound but the store's.
  ///
  /// nil = as it is.
  public var quotaBytes: UInt64?

  /// How long blocks live that are written without a word about it.
  ///
  /// nil = as it is.
  public var timeToLive: TimeToLive?

  /// Everything as it is; a new namespace has no limits.
  public init(quotaBytes: UInt64? = nil, timeToLive: TimeToLive? = nil) {
    self.quotaBytes = quotaBytes
    self.timeToLive = timeToLive
  }
}
