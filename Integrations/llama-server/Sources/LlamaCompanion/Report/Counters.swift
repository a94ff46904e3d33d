import Synchronization

/// What a companion has done since it was started.
final class Counters: Sendable {
  struct Values: Sendable {
    var requests: UInt64 = 0
    var helped: UInt64 = 0
    var passed: [String: UInt64] = [:]
    var refused: UInt64 = 0
    var cancelled: UInt64 = 0
    var tokensAsked: UInt64 = 0
    var tokensFromMemory: UInt64 = 0
    var tokensRestored: UInt64 = 0
    var tokensComputed: UInt64 = 0
    var restores: UInt64 = 0
    var restoresFailed: UInt64 = 0
    var restoresIgnored: UInt64 = 0
    var saves: UInt64 = 0
    var savesSpared: UInt64 = 0
    var savesFailed: UInt64 = 0
    var slotsLost: UInt64 = 0
    var slotsErased: UInt64 = 0
    var computedAhead: UInt64 = 0
    var savedMilliseconds: Double = 0
    /// Measured: the server's time for a token of a prompt, and ours for a byte of a slot file.
    var prefillMillisecondsPerToken: Double?
    var restoreNanosecondsPerByte: Double?
    var saveMillisecondsPerToken: Double?
    var disappointments = 0
    var pins: UInt64 = 0
    var wakes: UInt64 = 0
    var promptsMisjudged: UInt64 = 0
    /// In a row.
    var misjudged: [RequestKind.EndpointStyle: Int] = [:]
  }

  private let values = Mutex(Values())

  var now: Values { values.withLock { $0 } }

  func change<Result>(_ body: (inout Values) -> sending Result) -> sending Result {
    values.withLock { body(&$0) }
  }

  /// In Prometheus' format.
  var text: String {
    let values = now
    var result = ""
    func counter(_ name: String, _ help: String, _ samples: [(String, String)]) {
      result += "# HELP kvstore_llama_\(name) \(help)\n# TYPE kvstore_llama_\(name) counter\n"
      for (labels, value) in samples { result += "kvstore_llama_\(name)\(labels) \(value)\n" }
    }
    func one(_ name: String, _ help: String, _ value: UInt64) {
      counter(name, help, [("", String(value))])
    }
    one("requests_total", "Requests that came.", values.requests)
    one("requests_helped_total", "Requests whose prompt was looked up.", values.helped)
    counter(
      "requests_passed_total",
      "Completions that were passed on as they are, by reason.",
      values.passed.sorted { $0.key < $1.key }.map {
        ("{reason=\(JSON.quoted($0.key))}", String($0.value))
      }
    )
    one(
      "requests_refused_total",
      "Requests answered 503 since the server was gone.",
      values.refused
    )
    one("requests_cancelled_total", "Requests whose client went away.", values.cancelled)
    one("prompt_tokens_total", "Tokens of the prompts that were looked up.", values.tokensAsked)
    one(
      "prompt_tokens_memory_total",
      "Of them, tokens that were in the server's slot.",
      values.tokensFromMemory
    )
    one(
      "prompt_tokens_restored_total",
      "Of them, tokens restored from the store.",
      values.tokensRestored
    )
    one(
      "prompt_tokens_computed_total",
      "Of them, tokens that the server says it computed.",
      values.tokensComputed
    )
    one("restores_total", "Slot files that the server took.", values.restores)
    one(
      "restores_failed_total",
      "Restores that failed; the prompt was computed.",
      values.restoresFailed
    )
    one(
      "restores_ignored_total",
      "Restores that the server computed again.",
      values.restoresIgnored
    )
    one(
      "wakes_total",
      "Requests that the server had forgotten while they waited for a slot.",
      values.wakes
    )
    one("pins_total", "Prefixes pinned by break points and hints.", values.pins)
    one(
      "prompts_misjudged_total",
      "Requests of which the server made other tokens than we did; nothing wrong, but no help either.",
      values.promptsMisjudged
    )
    one("saves_total", "Slot files taken from the server.", values.saves)
    one(
      "saves_spared_total",
      "Saves that were put off: too little was new for what they take.",
      values.savesSpared
    )
    one("saves_failed_total", "Saves that failed; nothing was stored.", values.savesFailed)
    one(
      "slots_lost_total",
      "Slots in which the server had something else than we left there.",
      values.slotsLost
    )
    one(
      "slots_erased_total",
      "Slots erased since a restored prefix was left in its middle.",
      values.slotsErased
    )
    one(
      "ends_computed_total",
      "Prompts computed ahead to have an end to go on from.",
      values.computedAhead
    )
    counter(
      "prefill_seconds_saved_total",
      "Time that the server did not spend on restored tokens, at its own speed.",
      [("", number(values.savedMilliseconds / 1000))]
    )
    return result
  }
}
