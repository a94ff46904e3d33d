package import KVCore
package import KVFile

/// Part of a slot that is to be read.
///
/// The buffer belongs to the reader until the batch has reported it.
@safe package struct ReadRequest {
  package let address: SlotAddress
  package let slotByteCount: Int
  /// From the slot's start; a multiple of 4096 for direct I/O, as are the buffer's size and address.
  package let offset: Int
  package let buffer: UnsafeMutableRawBufferPointer
  /// Runs on the thread that has read, before anybody is told: what is stored encoded is decoded there, several blocks at once.
  ///
  /// Returns what the read then counts as: nil, or `FileError.unsound`.
  package let completion: (@Sendable () -> FileError?)?

  package init(
    address: SlotAddress,
    slotByteCount: Int,
    offset: Int,
    buffer: UnsafeMutableRawBufferPointer,
    completion: (@Sendable () -> FileError?)? = nil
  ) {
    self.completion = completion
    self.address = address
    self.slotByteCount = slotByteCount
    self.offset = offset
    unsafe self.buffer = unsafe buffer
  }
}
