/// What we believe is in the server's slots, and who uses them.
///
/// Only a belief: anyone may use the server without us. Before a slot is gone on with, the server is asked whether what we left there is
/// still what was done last.
actor SlotTable {
  struct Slot: Sendable {
    var id: Int
    /// The prefix that is in the slot.
    var tokens: [Int32] = []
    /// How many tokens the server has there: more, where an answer was not saved.
    var tokenCount = 0
    /// How much of it came from the store and was not computed there.
    var restoredTokenCount = 0
    /// Whose prefix it is.
    var tenant = ""
    /// The task that used the slot last, as the server numbers them.
    var task = -1
    var isBusy = false
    /// Its answer is out, and it is being saved: soon given back, with what is in `tokens`.
    var isSettling = false
    var usedNanoseconds: UInt64 = 0
    /// Times that it was given out: what was found out for one use means nothing for the next.
    var uses: UInt64 = 0
  }

  /// A slot that was given out, and in which start of the server.
  typealias Given = (slot: Slot, epoch: UInt64)

  private(set) var slots: [Slot] = []
  private struct Waiter {
    var id: UInt64
    var tokens: [Int32]
    var tenant: String
    /// Whether it rather waits for a slot that is being saved than take one that has less of its prompt.
    var waitsForSettling = true
    var go: CheckedContinuation<Given?, Never>
  }

  private var waiters: [Waiter] = []
  private var waiterNumber: UInt64 = 0
  /// One start of the server; slots of an earlier one are not given back.
  private(set) var epoch: UInt64 = 0

  /// A server has started: nothing is in its slots.
  func reset(count: Int) {
    epoch += 1
    slots = (0..<count).map { Slot(id: $0) }
    serve()
  }

  /// Gives what is free to those who wait, in their order.
  private func serve() {
    var index = 0
    while index < waiters.count {
      let waiter = waiters[index]
      if let given = choose(waiter.tokens, waiter.tenant, waiter.waitsForSettling) {
        waiters.remove(at: index)
        waiter.go.resume(returning: given)
      } else {
        index += 1
      }
    }
  }

  /// The slot with the longest common prefix, else the one that was not used for longest; waits while all are in use, and for
  /// one that is being saved where that one has most of the prompt.
  ///
  /// - Returns: nil when the caller was cancelled.
  func acquire(_ tokens: [Int32], tenant: String) async -> Given? {
    waiterNumber += 1
    let number = waiterNumber
    // Those who wait already have no use for what is free.
    if let given = choose(tokens, tenant, true) { return given }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { (go: CheckedContinuation<Given?, Never>) in
        if Task.isCancelled {
          go.resume(returning: nil)
        } else {
          waiters.append(Waiter(id: number, tokens: tokens, tenant: tenant, go: go))
          Task {
            try? await Task.sleep(for: .seconds(5))
            self.takeAny(number)
          }
        }
      }
    } onCancel: {
      Task { await self.stopWaiting(number) }
    }
  }

  /// Whether a slot has, or is about to have, a prompt that begins like this.
  func hasBeginning(of tokens: [Int32], tenant: String) -> Bool {
    slots.contains {
      $0.tenant == tenant && commonPrefix($0.tokens[...], tokens[...]) >= 32
    }
  }

  private func stopWaiting(_ number: UInt64) {
    guard let index = waiters.firstIndex(where: { $0.id == number }) else { return }
    waiters.remove(at: index).go.resume(returning: nil)
  }

  /// Something keeps the server from saving a slot: it is no longer waited for.
  private func takeAny(_ number: UInt64) {
    guard let index = waiters.firstIndex(where: { $0.id == number }) else { return }
    waiters[index].waitsForSettling = false
    serve()
  }

  /// The answer of a slot is all but out: what was asked is there, and who goes on from it waits for that slot.
  func settle(_ slot: Int, epoch: UInt64, tokens: [Int32], tenant: String) {
    guard epoch == self.epoch, slots.indices.contains(slot) else { return }
    slots[slot].isSettling = true
    slots[slot].tokens = tokens
    slots[slot].tenant = tenant
  }

  private func choose(_ tokens: [Int32], _ tenant: String, _ waitsForSettling: Bool) -> Given? {
    let idle = slots.filter { !$0.isBusy }
    guard !idle.isEmpty else { return nil }
    let common = { (slot: Slot) in commonPrefix(slot.tokens[...], tokens[...]) }
    let own = idle.filter { $0.tenant == tenant }.map { ($0, common: common($0)) }
    if waitsForSettling {
      let most = own.map(\.common).max() ?? 0
      let isBetter = { (slot: Slot) in
        slot.isSettling && slot.tenant == tenant && common(slot) >= most + 64
          && common(slot) * 2 >= slot.tokens.count
      }
      if slots.contains(where: isBetter) { return nil }
    }
    // A conversation goes on where it is. One that only begins alike would push that one out: it takes the oldest slot.
    let best = own.max { ($0.common, $0.0.usedNanoseconds) < ($1.common, $1.0.usedNanoseconds) }
    let chosen: Slot
    if let best, best.common >= 32, best.common * 2 >= best.0.tokens.count {
      chosen = best.0
    } else {
      chosen = idle.min {
        ($0.tokens.isEmpty ? 0 : 1, $0.usedNanoseconds) < (
          $1.tokens.isEmpty ? 0 : 1, $1.usedNanoseconds
        )
      }!
    }
    slots[chosen.id].isBusy = true
    slots[chosen.id].uses += 1
    // As it is now: by the time that a waiter runs, the table may be another one.
    return (slots[chosen.id], epoch)
  }

  /// Gives a slot back, with what is in it now.
  func release(_ slot: Slot, epoch: UInt64) {
    guard epoch == self.epoch, slots.indices.contains(slot.id), slots[slot.id].uses == slot.uses
    else { return }
    slots[slot.id] = slot
    slots[slot.id].isBusy = false
    slots[slot.id].isSettling = false
    slots[slot.id].usedNanoseconds = nowNanoseconds()
    serve()
  }

  /// The server is gone: who waits for a slot hears it.
  func dropWaiters() {
    for waiter in waiters { waiter.go.resume(returning: nil) }
    waiters = []
  }

  /// Not in use if any is, and empty or the oldest.
  var leastMissed: Int {
    let rank = { (slot: Slot) in
      (slot.isBusy ? 1 : 0, slot.tokens.isEmpty ? 0 : 1, slot.usedNanoseconds)
    }
    return slots.min { rank($0) < rank($1) }?.id ?? 0
  }

  var waitingCount: Int { waiters.count }
  var busyCount: Int { slots.count { $0.isBusy } }
}
