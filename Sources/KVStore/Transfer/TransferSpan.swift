/// One piece of caller memory.
///
/// Has the layout of `kvstore_span_t`, which the C layer checks.
@safe public struct TransferSpan {
  /// Where the bytes are, or go.
  public var data: UnsafeMutableRawPointer?
  /// Restore: bytes that fit.
  public var capacity: Int
  /// Offload: bytes to store.
  ///
  /// Restore: set to the bytes that the region has.
  public var length: Int

  /// A piece of memory.
  public init(data: UnsafeMutableRawPointer?, capacity: Int, length: Int) {
    unsafe self.data = unsafe data
    self.capacity = capacity
    self.length = length
  }
}
