import Foundation
import KVFuzzTargets
import Testing

/// Runs every parser of stored bytes over the corpus that fuzzing has gathered (`Scripts/fuzz`).
///
/// A trap ends the test run; files with a name were found to trap or not to end once.
@Suite struct CorpusTests {
  private static let corpus = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "Corpus")

  @Test(arguments: FuzzTarget.allCases)
  func corpusIsParsed(_ target: FuzzTarget) throws {
    let folder = Self.corpus.appending(path: target.rawValue)
    let files = try FileManager.default.contentsOfDirectory(
      at: folder,
      includingPropertiesForKeys: nil
    )
    // An empty folder would test nothing.
    #expect(files.count >= 8)
    for file in files { target.run([UInt8](try Data(contentsOf: file))) }
    for seed in target.seeds { target.run(seed) }
  }
}
