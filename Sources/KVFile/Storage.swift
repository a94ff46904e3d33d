package import KVCore

/// The file system as the store uses it: the seam where tests inject faults and power loss.
///
/// Paths begin at a folder that is open (`openFolder`), or like any path where there is none.
package protocol Storage: Sendable {
  /// The folder at which paths begin; nil for all paths there are.
  var folder: OpenFolder? { get }
  /// The same file system, with paths that begin at this folder.
  func openFolder(_ path: String) throws(FileError) -> any Storage
  /// Opens a file. With `direct` its aligned transfers go past the page cache where the file system allows it.
  func openFile(
    _ path: String,
    mode: OpenMode,
    direct: Bool
  ) throws(FileError) -> any StorageFile
  /// Makes a folder of mode 0700; one that exists already is fine.
  func makeDirectory(_ path: String) throws(FileError)
  func remove(_ path: String) throws(FileError)
  /// Replaces `newPath` if it exists.
  func rename(_ path: String, to newPath: String) throws(FileError)
  /// Gives a file a second name.
  func link(_ path: String, to newPath: String) throws(FileError)
  /// Makes the folder's entries durable; "." is the folder at which paths begin.
  func syncDirectory(_ path: String) throws(FileError)
  /// Bytes that an unprivileged process can still use on the file system of `path`.
  func freeByteCount(_ path: String) throws(FileError) -> UInt64
  /// Throws where that cannot be told: what may not be looked at is not absent.
  func fileExists(_ path: String) throws(FileError) -> Bool
  /// The names in a folder, without `.` and `..`, in no order.
  func list(_ path: String) throws(FileError) -> [String]
}

/// An open file.
///
/// Transfers are whole or an error, and may run at the same time on different threads.
///
/// The kernel's descriptor is closed when the last reference goes, so no transfer can hit a reused number.
package protocol StorageFile: AnyObject, Sendable {
  /// Fills `bytes` from `offset` on; a file that ends before is `FileError.endOfFile`.
  func read(into bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError)
  /// Fills several buffers from consecutive bytes of the file.
  func read(into buffers: [UnsafeMutableRawBufferPointer], at offset: UInt64) throws(FileError)
  /// Writes `bytes` at `offset`. After an error the range holds old bytes, new ones or a mixture.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError)
  /// Writes several buffers to consecutive bytes of the file.
  func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(FileError)
  /// Makes what was written durable (`fdatasync`). Once it has failed, every write and sync of this file fails.
  func sync() throws(FileError)
  /// Gives the file room on disk up to `byteCount`, so that later writes below it cannot run out of space.
  func allocate(byteCount: UInt64) throws(FileError)
  func byteCount() throws(FileError) -> UInt64
  /// Bytes that the file really takes up on disk.
  func allocatedByteCount() throws(FileError) -> UInt64
  /// Whether anything was ever written to it; in doubt yes.
  func hasData() throws(FileError) -> Bool
  func identity() throws(FileError) -> FileIdentity
  /// Whether aligned transfers go past the page cache.
  var isDirect: Bool { get }
  /// Lets the kernel forget its cached pages of this file.
  func dropPageCache() throws(FileError)
  /// Makes every later use fail.
  func close()
}
