internal import KVCore
internal import KVFile

/// Memory for the chunks of one fetch, which those that come later use again: pages that nobody touched cost more than what is copied
/// into them (docs/decisions/0016).
final class ChunkMemory: Sendable {
  private let spare = Monitor<[MappedMemory]>([])
  /// Of each piece: the longest that a chunk can be.
  let byteCount: Int

  init(byteCount: Int) { self.byteCount = byteCount }

  /// nil when memory is short.
  func take() -> MappedMemory? {
    if let used = spare.withLock({ $0.popLast() }) { return used }
    return try? MappedMemory.anonymous(byteCount: byteCount, usesHugePages: true)
  }

  func giveBack(_ memory: MappedMemory) { spare.withLock { $0.append(memory) } }
}
