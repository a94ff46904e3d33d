/// Why blocks left.
package enum RemovalReason: UInt8, Sendable {
  case none = 0, evicted, forgotten, corrupt, expired, quota
}
