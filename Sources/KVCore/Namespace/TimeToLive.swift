/// How long blocks live.
public enum TimeToLive: Sendable, Hashable {
  /// Until they are evicted.
  case unlimited
  /// So long after their last use; a use of a block is a use of all before it.
  case idle(nanoseconds: UInt64)
  /// So long after they were written, however often they are used.
  case absolute(nanoseconds: UInt64)
}

/// When a block's life ends; exactly that time is still within it.
package enum BlockExpiry: Sendable, Hashable {
  case unlimited
  /// Uses extend it; `deadline` is Unix time.
  case idle(nanoseconds: UInt64, deadline: UInt64)
  /// Unix time.
  case absolute(UInt64)

  package init(_ timeToLive: TimeToLive, from now: UInt64) {
    switch timeToLive {
    case .unlimited: self = .unlimited
    case .idle(let nanoseconds):
      self = .idle(nanoseconds: nanoseconds, deadline: now.advanced(by: nanoseconds))
    case .absolute(let nanoseconds): self = .absolute(now.advanced(by: nanoseconds))
    }
  }

  package var isIdle: Bool { if case .idle = self { true } else { false } }

  /// When it ends if nobody uses the block; `.max` = never.
  package var deadline: UInt64 {
    switch self {
    case .unlimited: .max
    case .idle(_, let deadline): deadline
    case .absolute(let deadline): deadline
    }
  }

  /// A life that is not shorter than either: writing a block again never takes from its life.
  package func joined(_ other: BlockExpiry) -> BlockExpiry {
    switch (self, other) {
    case (.unlimited, _), (_, .unlimited): .unlimited
    case (.absolute(let a), .absolute(let b)): .absolute(max(a, b))
    case (.idle(let a, let deadline), .idle(let b, let otherDeadline)):
      .idle(nanoseconds: max(a, b), deadline: max(deadline, otherDeadline))
    case (.idle(let nanoseconds, let deadline), .absolute(let end)),
      (.absolute(let end), .idle(let nanoseconds, let deadline)):
      .idle(nanoseconds: nanoseconds, deadline: max(deadline, end))
    }
  }
}

extension UInt64 {
  /// The sum, or the largest number where it would overflow.
  package func advanced(by nanoseconds: UInt64) -> UInt64 {
    let (sum, overflow) = addingReportingOverflow(nanoseconds)
    return overflow ? .max : sum
  }
}
