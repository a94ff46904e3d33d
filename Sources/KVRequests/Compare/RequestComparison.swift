/// Two requests of one conversation, the later beside the earlier: how far they agree, what is different, and what it costs.
///
///     earlier   tools | system | m0 | m1 | m2
///     later     tools | system'| m0 | m1 | m2 | m3
///                       ▲ a change here: m0 … m2 are the same, and count as new; m3 is new anyway
///
/// A change behind which nothing comes that both have costs nothing, and is none: what was appended, a fork, another attempt.
public struct RequestComparison: Sendable {
  /// What the later request is to the earlier one.
  public enum Relation: Sendable {
    /// The same prompt.
    case same
    /// The earlier prompt, and more.
    case appended
    /// The beginning of the earlier prompt.
    case shortened
    /// The same front, and then something else.
    case forked
    /// The same conversation, with changes in what was sent before.
    case changed
  }

  /// What the later request is to the earlier one.
  public let relation: Relation
  /// What is different, in the order of the prompt.
  ///
  /// Only what costs something.
  public let changes: [RequestChange]
  /// Tokens of the common front, estimated.
  public let commonTokenCount: Int
  /// Tokens of the later prompt that the earlier one has as well, wherever: what could have been found; estimated.
  public let sharedTokenCount: Int
  /// Bytes of the common front.
  let commonByteCount: Int
  /// Parts of the later request that were appended behind what the earlier one has.
  let appended: Range<Int>

  /// Compares two requests.
  ///
  /// - Parameters:
  ///   - previous: The earlier request.
  ///   - next: The later one, in which the places of changes are given.
  public init(from previous: PromptRequest, to next: PromptRequest) {
    self.init(from: previous, to: next, foundByteCount: 0)
  }

  /// `foundByteCount`: leading bytes of the later prompt that some other request has had, too: a change within costs nothing.
  init(from previous: PromptRequest, to next: PromptRequest, foundByteCount: Int) {
    var finder = ChangeFinder(old: previous, new: next)
    finder.run()
    let front = TextSimilarity.commonPrefix(
      previous.prompt,
      0..<previous.prompt.count,
      next.prompt,
      0..<next.prompt.count
    )
    let hasSameSettings = finder.hasSameSettings
    commonByteCount = hasSameSettings ? front : 0
    commonTokenCount = TokenEstimate.count(next.prompt, 0..<commonByteCount)
    appended = finder.appended
    changes = finder.changes(from: hasSameSettings ? max(front, foundByteCount) : foundByteCount)
    sharedTokenCount = max(commonTokenCount, finder.keptTokenCount)
    if !changes.isEmpty {
      relation = .changed
    } else if front == previous.prompt.count {
      relation = front == next.prompt.count ? .same : .appended
    } else {
      relation = front == next.prompt.count ? .shortened : .forked
    }
  }
}
