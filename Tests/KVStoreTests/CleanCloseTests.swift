import Foundation
import Glibc
import KVAdmin
import KVStore
import Testing

/// What is said of a store's last close, and of a store at rest, when processes came and went in any order.
@Suite struct CleanCloseTests {
  /// `kvstore import`, which has the store open for writing and waits for its input.
  private final class Writer {
    private let process = Process()
    private let input = Pipe()

    init(_ fixture: StoreFixture) throws {
      process.executableURL = kvstoreCommand
      process.arguments = ["import", fixture.configuration.path, "-"]
      process.standardInput = input
      process.standardOutput = FileHandle.nullDevice
      process.standardError = FileHandle.nullDevice
      let before = try fixture.store.inspector.summary().ownerCount
      try process.run()
      // By its owner file, which it makes after its mark in the catalog.
      while try fixture.store.inspector.summary().ownerCount == before {
        try #require(process.isRunning)
        usleep(10_000)
      }
    }

    func kill() {
      Glibc.kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
    }

    func end() throws {
      try input.fileHandleForWriting.close()
      process.waitUntilExit()
    }
  }

  private func isClean(_ fixture: StoreFixture) throws -> Bool {
    var configuration = fixture.configuration
    configuration.readOnly = true
    let reader = try Store.open(configuration)
    defer { try? reader.close() }
    return try reader.inspector.summary().isClean
  }

  @Test func aWriterIsKilledAfterAnotherClosed() throws {
    let fixture = try StoreFixture()
    let writer = try Writer(fixture)
    try fixture.store.close()
    #expect(try !isClean(fixture))
    writer.kill()
    #expect(try !isClean(fixture))
    // One that has it alone begins anew.
    try fixture.reopenClosed()
    #expect(try !fixture.store.inspector.summary().isClean)
    try fixture.store.close()
    #expect(try isClean(fixture))
  }

  @Test func aWriterIsKilledBeforeAnotherCloses() throws {
    let fixture = try StoreFixture()
    let writer = try Writer(fixture)
    writer.kill()
    // Another that comes and goes meanwhile, and clears away the file of the dead one, makes it no cleaner.
    let other = try Writer(fixture)
    _ = try fixture.store.collectGarbage()
    try other.end()
    try fixture.store.close()
    #expect(try !isClean(fixture))
  }

  @Test func allClose() throws {
    let fixture = try StoreFixture()
    let writers = [try Writer(fixture), try Writer(fixture)]
    for writer in writers { try writer.end() }
    #expect(try !fixture.store.inspector.summary().isClean)
    try fixture.store.close()
    #expect(try isClean(fixture))
  }
}

/// The command, beside the tests.
private let kvstoreCommand = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
  .deletingLastPathComponent().appending(path: "kvstore")
