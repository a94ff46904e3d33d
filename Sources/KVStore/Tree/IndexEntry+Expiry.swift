internal import KVCatalog
internal import KVCore
internal import KVIndex

extension IndexEntry {
  /// The life that the entry says.
  var blockExpiry: BlockExpiry {
    get {
      if flags.contains(.idleExpiry) {
        return .idle(nanoseconds: idleNanoseconds, deadline: expiry)
      }
      return expiry == 0 ? .unlimited : .absolute(expiry)
    }
    set {
      flags.remove(.idleExpiry)
      idleNanoseconds = 0
      switch newValue {
      case .unlimited: expiry = 0
      case .absolute(let deadline): expiry = deadline
      case .idle(let nanoseconds, let deadline):
        flags.insert(.idleExpiry)
        idleNanoseconds = nanoseconds
        expiry = deadline
      }
    }
  }
}

extension StoreTime {
  /// Whether a block's life is over as the index knows it.
  func isOver(_ entry: IndexEntry, at now: UInt64) -> Bool {
    entry.expiry != 0
      && isOver(deadline: entry.expiry, isIdle: entry.flags.contains(.idleExpiry), at: now)
  }
}
