import Foundation

/// A folder for one test, removed at the end of its life.
package final class TemporaryFolder: Sendable {
  package let path: String

  /// In `parent`, or where the system keeps temporary files.
  package init(in parent: String? = nil) throws {
    let base = parent ?? FileManager.default.temporaryDirectory.path
    path = base + "/kvstore-test-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}
