import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOPosix
import Synchronization

extension Companion {
  /// Lets the server write a slot, and reads what it wrote.
  func save(_ slot: Int, _ attachment: Attachment) async throws -> (MappedFile, SlotFile) {
    let layout = attachment.layout
    let start = nowNanoseconds()
    let name = folder.newName()
    defer { folder.remove(name) }
    _ = try await server.post("/slots/\(slot)?action=save", "{\"filename\":\"\(name)\"}")
    let result = try await threads.runIfActive { [folder] in
      let file = try folder.take(name)
      return (file, try SlotFile(file.readable, stateByteCount: layout.stateByteCount))
    }
    try await checkStanding(attachment)
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

  /// What a slot action gave or took was of the server that we know: it has the mark of that start still.
  ///
  /// Asked afterwards: one that has come meanwhile may have another model of the same layout, and its port. What is in a slot ends with
  /// the process, so nothing that happens after this question can make the answer wrong.
  func checkStanding(_ attachment: Attachment) async throws {
    async let asked = server.get("/lora-adapters")
    let properties = try await server.properties()
    let adapters = try await asked
    guard properties.raw == attachment.properties[...], adapters.raw == attachment.adapters[...]
    else { throw OtherServer() }
  }

  /// The server is another one than it was when a request was decided on.
  struct OtherServer: Error, CustomStringConvertible {
    var description: String { "the server was started anew" }
  }

  /// Stores what is new in a saved file, off everyone's path.
  func store(
    _ file: MappedFile,
    _ parsed: SlotFile,
    _ passage: Passage,
    _ rule: PrefixStore.StoredEndRule
  ) {
    work.withLock { $0.storing += 1 }
    let (id, tenant) = passage.state.withLock { ($0.exchange.id, $0.exchange.tenant) }
    comes(id, tenant, passage.tokens)
    let task = Task {
      // One after the other: of two files of one prompt the second has little that is new.
      await storeGate.enter()
      do {
        let taken = try await threads.runIfActive {
          try passage.prefixes.take(
            parsed,
            file.readable,
            rule,
            lives: passage.hints.lives
          )
        }
        passage.state.withLock { state in
          state.newBlockCount += taken.newBlockCount
          log.addNewBlocks(taken.newBlockCount, to: state.exchange.id)
        }
        if let problem = taken.problem { logger.debug("not stored: \(problem)") }
      } catch {
        logger.warning(
          "what was computed could not be stored: \((error as? StoreError)?.message ?? "\(error)")"
        )
      }
      hasCome(id)
      // Durable before the next one begins, one sync for all that wait: after a kill, a conversation goes on from its last answer.
      if passage.wantsKeeping || work.withLock({ $0.storing == 1 }) {
        do {
          try await threads.runIfActive { [self] in
            try passage.prefixes.flush()
            // Only what is durable can be pinned.
            keep(passage)
          }
        } catch {
          logger.warning("not durable yet: \((error as? StoreError)?.message ?? "\(error)")")
        }
      }
      await storeGate.leave()
      work.withLock { $0.storing -= 1 }
    }
    passage.state.withLock { $0.stores.append(task) }
  }
}
