/// Which way slot files are read and written.
public enum IOPath: UInt32, Sendable {
  /// No slot file has been opened yet.
  case none = 0
  /// O_DIRECT.
  case direct = 1
  /// Through the page cache.
  case buffered = 2
}
