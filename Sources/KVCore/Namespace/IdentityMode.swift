/// What identifies a block within its namespace.
public enum IdentityMode: UInt32, Sendable, Hashable {
  /// Its token ids and those of its whole prefix.
  case tokens = 0
  /// The caller's own chained digest of at least 256 bits, compared whole.
  case digest = 1
}
