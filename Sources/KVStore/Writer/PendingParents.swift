internal import KVCatalog
internal import KVCore

/// The blocks on their way to the catalog, as far as removals have to know: their parents must stay.
///
/// Belongs to the writer's thread; what `positions` returns may be called with the state locked.
final class PendingParents: @unchecked Sendable {
  // Unchecked: the writer's thread alone, or whoever closes the store after it; the queue has a lock.
  private let queue: Monitor<WriterQueue>
  /// Where recently published blocks went, by ticket; for children, touches and hits that name them so.
  private(set) var published: [UInt64: BlockPosition] = [:]
  /// The blocks that were taken from the queue and are not settled.
  private var inFlight: [PendingBlock] = []

  init(_ queue: Monitor<WriterQueue>) { self.queue = queue }

  /// The blocks among what was taken from the queue keep their parents until `endTaken`.
  func take(_ operations: [WriterOperation]) {
    for operation in operations {
      if case .publish(let block) = operation { inFlight.append(block) }
    }
  }

  func endTaken() { inFlight = [] }

  /// Blocks got positions; of older ones the newest 65,536 are kept.
  func remember(_ outcomes: [UInt64: BlockPosition]) {
    if published.count > 1 << 17, let newest = published.keys.max() {
      published = published.filter { $0.key > newest - 1 << 16 }
    }
    published.merge(outcomes) { $1 }
  }

  /// The deepest position of each run that a block on its way hangs from, at the time of the call.
  ///
  /// Blocks of the tickets `settled` need their parents no longer. What has been offloaded until the call is in the queue.
  func positions(but settled: Set<UInt64>) -> () -> [RunID: UInt32] {
    let taken = inFlight.filter { !settled.contains($0.ticket) }.map(\.parent)
    let known = published
    let queue = queue
    return {
      let queued = queue.withLock { queue in
        queue.operations.compactMap { operation -> LeaseTable.Target? in
          if case .publish(let block) = operation { return block.parent }
          return nil
        }
      }
      var deepest: [RunID: UInt32] = [:]
      for parent in taken + queued {
        let position: BlockPosition? =
          switch parent {
          case .published(let position): position
          case .pending(let ticket): known[ticket]
          }
        guard let position, position.run != .root else { continue }
        deepest[position.run] = max(deepest[position.run] ?? 0, position.position)
      }
      return deepest
    }
  }
}
