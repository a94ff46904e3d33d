internal import CLinux

/// Which process of a chain of forks this is; a handle from another one is of no use here.
package struct ForkGeneration: Equatable, Sendable {
  private let count: UInt64

  /// This process's.
  package static var current: ForkGeneration { ForkGeneration(count: clinux_fork_generation()) }
}
