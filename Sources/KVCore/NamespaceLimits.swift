/// What a namespace may hold.
///
/// Not part of its identity: opening it with other limits changes them.
public struct NamespaceLimits: Sendable, Hashable {
  /// Slot bytes on disk, or payload bytes where the payload lies in the catalog; 0 = no bound but the store's.
  ///
  /// nil = as it is.
  public var quotaBytes: UInt64?

  /// Everything as it is; a new namespace has no limits.
  public init(quotaBytes: UInt64? = nil) { self.quotaBytes = quotaBytes }
}
