public import KVCore

extension Namespace {
  /// Why the prompt is stored only up to where it is: where it diverges, from what, and what to do about it.
  ///
  /// Cheap enough to ask on every miss. Sees what is committed; takes no lease and leaves no trace. Of other namespaces it tells
  /// only about those with the same salt. An empty prompt misses nothing and is refused.
  public func explain(
    _ prompt: Prompt,
    _ options: ExplainOptions = ExplainOptions()
  ) throws(StoreError) -> Explanation {
    try store.enter()
    defer { store.leave() }
    try core.check(prompt, wholeBlocks: false)
    guard prompt.wordCount > 0 else { throw .invalidArgument(.noTokens) }
    var options = options
    options.sameSaltOnly = true
    return try store.core.explain(core.id, prompt, options)
  }
}
