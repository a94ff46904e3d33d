import Foundation
import KVCore
import KVRemote
import Testing

/// Chunks that were once made are still read, and made the same; `Tests/format-reader` reads the same files.
@Suite struct ChunkFormatTests {
  private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "Fixtures/remote-chunks")
  /// As in the file `key` beside them.
  private static let key = [UInt8]("a key for tests that everybody may know\n".utf8)

  private func path(hasKey: Bool) throws -> ChunkFixture {
    try ChunkFixture(key: hasKey ? Self.key : nil, blockCount: 8) { identity in
      // Two blocks to a chunk, and few bytes in them.
      identity.regionsAreVariable = true
      identity.regionByteCounts = [1 << 20, 600, 1 << 20]
    }
  }

  @Test(arguments: [("plain", false, false), ("frames", true, false), ("keyed", false, true)])
  func chunksAreReadAndMadeAsTheyWere(name: String, isEncoded: Bool, hasKey: Bool) throws {
    let path = try path(hasKey: hasKey)
    for chunk in [0, 3] {
      let file = Self.folder.appending(path: "\(name)-\(chunk)")
      let lives: (UInt64, UInt64) = chunk == 0 ? (0, 0) : (1 << 62, 3_600_000_000_000)
      let made = try path.object(
        chunk,
        endOfLife: lives.0,
        idleLife: lives.1,
        isEncoded: isEncoded
      )
      if ProcessInfo.processInfo.environment["KVSTORE_WRITE_FIXTURES"] != nil {
        try FileManager.default.createDirectory(at: Self.folder, withIntermediateDirectories: true)
        try Data(made).write(to: file)
      }
      let kept = [UInt8](try Data(contentsOf: file))
      let payloads = try path.read(kept, chunk: chunk)
      #expect(payloads == path.payloads[chunk * 2..<chunk * 2 + 2].map { Array($0.joined()) })
      // Another version of zstd may make other frames.
      if !isEncoded { #expect(made == kept) }
    }
  }
}
