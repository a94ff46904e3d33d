import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOPosix
import Synchronization

extension Companion {
  /// Lets the server write a slot, and reads what it wrote.
  func save(_ slot: Int, _ layout: SlotLayout) async throws -> (MappedFile, SlotFile) {
    let start = nowNanoseconds()
    let name = folder.newName()
    defer { folder.remove(name) }
    _ = try await server.post("/slots/\(slot)?action=save", "{\"filename\":\"\(name)\"}")
    let result = try await threads.runIfActive { [folder] in
      let file = try folder.take(name)
      return (file, try SlotFile(file.readable, stateByteCount: layout.stateByteCount))
    }
    let perToken = milliseconds(since: start) / Double(max(1, result.1.tokens.count))
    counters.change { values in
      values.saves += 1
      if result.1.tokens.count >= 256 {
        values.saveMillisecondsPerToken =
          values.saveMillisecondsPerToken.map { $0 * 0.7 + perToken * 0.3 } ?? perToken
      }
    }
    let saved = result.1.layout
    guard saved.caches.count == layout.caches.count,
      zip(saved.caches, layout.caches).allSatisfy({
        $0.planes == $1.planes && $0.rotation == $1.rotation
      })
    else { throw NotHelped("the server writes another layout than at its start") }
    return result
  }

  /// Stores what is new in a saved file, off everyone's path.
  func store(_ file: MappedFile, _ parsed: SlotFile, _ passage: Passage, replacesEnd: Bool) {
    let number = workNumber.wrappingAdd(1, ordering: .relaxed).newValue
    afterwards.withLock { _ = $0.insert(number) }
    Task {
      // One after the other: of two files of one prompt the second has little that is new.
      await storeGate.enter()
      do {
        let taken = try await threads.runIfActive {
          [prefixes = passage.prefixes, lives = passage.lives] in
          try prefixes.take(parsed, file.readable, replacesEnd: replacesEnd, lives: lives)
        }
        passage.state.withLock { state in
          state.exchange.newBlockCount += taken.newBlockCount
          log.addNewBlocks(taken.newBlockCount, to: state.exchange.id)
        }
        if let problem = taken.problem { logger.debug("not stored: \(problem)") }
      } catch {
        logger.warning(
          "what was computed could not be stored: \((error as? StoreError)?.message ?? "\(error)")"
        )
      }
      await storeGate.leave()
      self.afterwards.withLock { _ = $0.remove(number) }
    }
  }
}
