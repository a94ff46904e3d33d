/// Finds how many leading chunks of a path a remote has, in as few rounds of questions as there can be.
///
/// A search in k parts: each round asks about as many chunks as fit into one, evenly spread over those in question, and goes on between the
/// last that is there and the first that is not. So 512 questions a round find the end among 512 chunks in one round, and among 262,144 in two.
/// What lies before a chunk that is there is taken to be there as well; an eviction may have left holes, so the answer is a hint, and
/// who reads the chunks in order stops at the first hole.
package struct LookUpPlan: Sendable {
  /// Chunks that are there as far as is known.
  package private(set) var foundCount = 0
  /// The first chunk that is known to be missing, or past the last.
  private var missing: Int
  private let questionCountMax: Int
  /// What is asked now, ascending; empty when the end is found.
  package private(set) var questions: [Int] = []
  /// So many rounds were answered.
  package private(set) var roundCount = 0

  /// - Parameters:
  ///   - chunkCount: of the path.
  ///   - questionCountMax: what one round may ask; 2 at least.
  package init(chunkCount: Int, questionCountMax: Int) {
    missing = max(0, chunkCount)
    self.questionCountMax = max(2, questionCountMax)
    ask()
  }

  /// Takes the answers to `questions`, in their order.
  package mutating func take(_ answers: [Bool]) {
    guard !questions.isEmpty, answers.count == questions.count else { return }
    roundCount += 1
    for (question, isThere) in zip(questions, answers) {
      guard isThere else {
        missing = question
        break
      }
      foundCount = question + 1
    }
    ask()
  }

  private mutating func ask() {
    let count = missing - foundCount
    guard count > questionCountMax else {
      questions = Array(foundCount..<missing)
      return
    }
    // The first one is among them, since most paths are not there at all; the last one as well, since others are there whole.
    questions = [foundCount]
    let parts = questionCountMax - 1
    for part in 1...parts {
      // At most 2^32 chunks, whose product with the parts is far from the bounds of an Int.
      questions.append(foundCount + (count - 1) * part / parts)
    }
  }
}
