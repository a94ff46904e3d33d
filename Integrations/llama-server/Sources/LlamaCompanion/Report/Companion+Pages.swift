import KVStore
import LlamaSlots
import NIOHTTP1

/// What a companion tells about itself.
extension Companion {
  func countPassed(_ reason: String) {
    counters.change { values in
      // A status in a reason is cut off: labels are few.
      let label = reason.prefix { $0 != "(" && $0 != ":" }.trimmingTrailingSpace
      if values.passed.count < 64 || values.passed[label] != nil {
        values.passed[label, default: 0] += 1
      }
    }
  }

  /// Whether the caller may see what others asked: with a key of ours, only who has it.
  func mayLook(_ headers: HTTPHeaders) -> Bool {
    // Where callers are kept apart, none of them sees what others ask.
    guard let key = options.apiKey else { return !options.separatesTenants }
    return headers["authorization"].contains("Bearer \(key)") || headers["x-api-key"].contains(key)
  }

  func healthPage() async -> Front.Page {
    switch await keeper.glance() {
    case .attached(let attachment):
      let problem = await keeper.storeProblem
      let store = problem.map { ",\"store\":\(JSON.quoted($0))" } ?? ""
      return Front.Page(
        text: "{\"status\":\"ok\",\"model\":\(JSON.quoted(attachment.modelName))\(store)}"
      )
    case .notHelped(let why, _):
      return Front.Page(
        text: "{\"status\":\"ok\",\"kvstore\":\(JSON.quoted("passing requests on: \(why)"))}"
      )
    case .away(let why): return Front.unavailable(why)
    }
  }

  func metricsPage(_ upstream: String) async -> Front.Page {
    var text = upstream
    if !text.isEmpty, !text.hasSuffix("\n") { text += "\n" }
    text += counters.text
    let (busy, waiting) = (await slots.busyCount, await slots.waitingCount)
    for (name, help, value) in [
      ("slots_busy", "Slots in use.", busy),
      ("requests_waiting", "Requests that wait for a slot.", waiting),
      ("attached", "Whether the server is known and helped.", await isAttached ? 1 : 0),
      ("tmpfs_free_bytes", "Bytes free where slot files are made.", folder.freeByteCount),
    ] {
      text +=
        "# HELP kvstore_llama_\(name) \(help)\n# TYPE kvstore_llama_\(name) gauge\nkvstore_llama_\(name) \(value)\n"
    }
    if let store = await keeper.store, let own = try? store.metricsText() { text += own }
    return Front.Page(kind: "text/plain; version=0.0.4; charset=utf-8", text: text)
  }

  var isAttached: Bool {
    get async {
      if case .attached = await keeper.standing { return true }
      return false
    }
  }

  func page(_ path: String) async -> Front.Page? {
    switch path {
    case "/kvstore/requests":
      return Front.Page(text: "[\(log.exchanges.reversed().map(\.json).joined(separator: ",\n"))]")
    case "/kvstore/sessions":
      let list = log.conversations.sorted { $0.lastMilliseconds > $1.lastMilliseconds }.map {
        conversation in
        """
        {"id":"\(String(conversation.id, radix: 16))","requests":\(conversation.requestCount),\
        "tokens":\(conversation.tokenCount),"reused":\(conversation.reusedTokenCount),\
        "last_tokens":\(conversation.lastTokenCount),"last":\(number(conversation.lastMilliseconds))}
        """
      }
      return Front.Page(text: "[\(list.joined(separator: ",\n"))]")
    case "/kvstore/status": return Front.Page(text: await statusText())
    default:
      let prefix = "/kvstore/requests/"
      guard path.hasPrefix(prefix), let id = UInt64(path.dropFirst(prefix.count)),
        let exchange = log.exchanges.last(where: { $0.id == id })
      else { return nil }
      return Front.Page(text: exchange.json)
    }
  }

  private func statusText() async -> String {
    let values = counters.now
    var standing: String
    switch await keeper.standing {
    case .attached(let attachment):
      standing = """
        "standing":"attached","model":\(JSON.quoted(attachment.modelName)),"build":\(JSON.quoted(attachment.buildInfo))
        """
    case .notHelped(let why, _): standing = "\"standing\":\"passing\",\"why\":\(JSON.quoted(why))"
    case .away(let why): standing = "\"standing\":\"away\",\"why\":\(JSON.quoted(why))"
    }
    let slotList = await slots.slots.map { slot in
      "{\"id\":\(slot.id),\"tokens\":\(slot.tokens.count),\"restored\":\(slot.restoredTokenCount),\"busy\":\(slot.isBusy)}"
    }
    var store = "null"
    if let open = await keeper.store, let statistics = try? open.statistics() {
      store = """
        {"blocks":\(statistics.blocksStored),"bytes_used":\(statistics.diskBytesUsed),\
        "bytes_capacity":\(statistics.diskBytesCapacity),"evicted":\(statistics.blocksEvicted)}
        """
    }
    let passed = values.passed.sorted { $0.key < $1.key }.map {
      "\(JSON.quoted($0.key)):\($0.value)"
    }
    return """
      {\(standing),"requests":\(values.requests),"helped":\(values.helped),"tokens":\(values.tokensAsked),\
      "tokens_memory":\(values.tokensFromMemory),"tokens_restored":\(values.tokensRestored),\
      "seconds_saved":\(number(values.savedMilliseconds / 1000)),\
      "prefill_ms_per_token":\(number(values.prefillMillisecondsPerToken ?? 0)),\
      "passed":{\(passed.joined(separator: ","))},"slots":[\(slotList.joined(separator: ","))],"pending":\(pendingCount),"store":\(store)}
      """
  }
}

extension Substring {
  fileprivate var trimmingTrailingSpace: String {
    var result = self
    while result.last == " " { result.removeLast() }
    return String(result)
  }
}
