internal import KVCore

extension Explanation {
  /// The cause and what to do about it, in plain words.
  ///
  /// Holds counts, dates and names of fields; no token, no value of an identity.
  public var message: String { "\(found) \(reason)" }

  private var found: String {
    if matchedTokenCount == 0 {
      return "No token of this prompt's \(blockCount) full blocks is found."
    }
    return
      "\(matchedTokenCount) tokens (\(matchedBlockCount) of \(blockCount) full blocks) are stored."
  }

  var reason: String {
    switch cause {
    case .stored: "Nothing is missing."
    case .partialBlock:
      "Nothing is missing: the tokens behind them fill no whole block, and only whole blocks are stored."
    case .nothingStored:
      "No stored prompt of this namespace begins like this one\(firstText). It is another conversation, or what comes first in "
        + "each request changes with it: compare it with a prompt that should share its front. If it was stored before, look "
        + "at the namespace's identity: one differing field is another namespace."
    case .appended:
      "The prompt goes on where a stored one ends: only what is new is computed, which is as it should be."
    case .forked:
      "From token \(divergenceToken) on it goes on differently from \(branchText), and has nothing in common with "
        + "\(branchCount == 1 ? "it" : "them") behind that: another conversation or a fork. The shared front stays stored, "
        + "the new branch is computed once."
    case .edited:
      "At token \(divergenceToken) \(tokenText(storedTokenCount)) of the stored prompt \(verb(storedTokenCount)) "
        + "\(tokenText(promptTokenCount)) now: something was edited. \(lostText) \(editAdvice)"
    case .inserted:
      "At token \(divergenceToken) \(tokenText(promptTokenCount)) were put in front of what is stored. \(lostText) "
        + editAdvice
    case .deleted:
      "At token \(divergenceToken) \(tokenText(storedTokenCount)) of the stored prompt are left out: a deleted message or "
        + "tool result. \(lostText) Leave old messages where they are, or cut many at once and seldom."
    case .reordered:
      "From token \(divergenceToken) on the same parts come in another order (tools, skills, JSON keys). \(lostText) "
        + "Put them in one fixed order, sorted by name for example."
    case .volatileValue:
      "At token \(divergenceToken) the prompts of this namespace differ in a few tokens each time and go on alike: a value "
        + "that changes with every request, such as a time or an id. \(lostText) Move it to the end of the prompt, behind "
        + "everything that stays the same, or round it so that it seldom changes."
    case .elsewhere:
      "\(tokenText(lostTokenCount)) of what follows are stored, but behind another prefix\(depthText), and KV depends on all "
        + "tokens before it. Attach a file once, near the front and always at the same place, and refer to it later."
    case .otherNamespace:
      "Another namespace has \(otherMatchedTokenCount) tokens of this prompt; it differs in: \(fieldText). KV of one identity "
        + "is of no use to another. If nothing was meant to change, make that field the same again."
    case .evicted:
      "The next block was evicted\(dateText): the space was needed for blocks used more recently. Give the store more "
        + "capacity, or pin what has to stay."
    case .overQuota:
      "The next block was removed\(dateText) because its namespace was over its quota. Raise the quota, or store less "
        + "under this namespace."
    case .expired:
      "The next block's time to live ended\(leftAfterItsEnd ? ", and it was removed" : "")\(dateText). Touch the prefix while the session pauses (keep-alive), or give it "
        + "a longer time to live."
    case .forgotten:
      "The next block was removed on request (forget or purge)\(dateText). It is computed and stored again."
    case .damaged:
      "The next block was damaged and set aside\(dateText). It is computed and stored again; `kvstore verify` tells whether "
        + "there is more damage."
    }
  }

  private func tokenText(_ count: Int) -> String { count == 1 ? "1 token" : "\(count) tokens" }

  private func verb(_ count: Int) -> String { count == 1 ? "is" : "are" }

  /// Tokens in common that fill no block, as a template's first ones.
  private var firstText: String {
    let verb = divergenceToken == 1 ? "fills" : "fill"
    return divergenceToken == 0
      ? "" : " (\(tokenText(divergenceToken)) in common, which \(verb) no block)"
  }

  private var branchText: String {
    branchCount == 1 ? "the stored prompt" : "\(branchCount) stored branches"
  }

  private var lostText: String {
    "\(tokenText(lostTokenCount)) behind it are stored as before but count as new, since KV depends on all tokens before it."
  }

  /// The front is where a change costs most.
  private var editAdvice: String {
    divergenceToken * 4 < blockCount * tokensPerBlockMatched || matchedTokenCount == 0
      ? "It is near the front: keep rules and tools fixed there, and put what changes (a time, an id, a note) at the end."
      : "Append a correction instead of changing an earlier message: then nothing is lost."
  }

  private var tokensPerBlockMatched: Int {
    matchedBlockCount > 0 ? matchedTokenCount / matchedBlockCount : 1
  }

  private var depthText: String {
    elsewhereDepth.map { " (they begin at token \($0) there)" } ?? ""
  }

  private var dateText: String {
    leftNanoseconds == 0 ? "" : " on \(dateText(unixSeconds: leftNanoseconds / 1_000_000_000))"
  }

  private var fieldText: String {
    differences.isEmpty
      ? "nothing but its number" : differences.map(\.field).joined(separator: ", ")
  }

  /// A moment in UTC: `2026-11-21 10:09:08 UTC`.
  private func dateText(unixSeconds: UInt64) -> String {
    let days = Int(clamping: unixSeconds / 86_400)
    let second = Int(unixSeconds % 86_400)
    // Days since 0000-03-01, so that the leap day is a year's last (the civil calendar's usual arithmetic).
    let shifted = days + 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted % 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
    return "\(year)-\(two(month))-\(two(day)) \(two(second / 3_600)):\(two(second / 60 % 60)):"
      + "\(two(second % 60)) UTC"
  }
}
