internal import CLinux

/// Which process of a chain of forks this is; a handle from another one is of no use here.
package struct ForkGeneration: Equatable, Sendable {
  package let count: UInt64

  /// This process's, for comparison with one that was noted.
  package static var current: ForkGeneration { ForkGeneration(count: clinux_fork_generation()) }

  /// This process's, to be noted: from now on forks are counted.
  package static func noted() -> ForkGeneration {
    clinux_fork_watch()
    return current
  }
}
