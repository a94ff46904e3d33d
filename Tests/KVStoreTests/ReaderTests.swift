import Foundation
import KVStore
import Testing

/// What a process that only reads a store is told of it, and leaves behind.
@Suite struct ReaderTests {
  /// A reader's own configuration says nothing about the store.
  @Test func aReaderIsToldTheStoresCapacity() throws {
    let fixture = try StoreFixture()
    var configuration = StoreConfiguration(path: fixture.configuration.path)
    configuration.readOnly = true
    try fixture.store.close()
    let reader = try Store.open(configuration)
    defer { try? reader.close() }
    #expect(try reader.statistics().diskBytesCapacity == 256 << 20)
    #expect(
      try reader.metricsText(includesProcess: false)
        .contains("\nkvstore_disk_capacity_bytes \(256 << 20)\n")
    )
  }

  /// It holds token ids: nobody else reads it, whatever the umask, and whoever could read what it replaces.
  @Test func aReportIsItsOwnersAlone() throws {
    let fixture = try StoreFixture()
    let report = fixture.folder.appending(path: "report.html").path
    try Data().write(to: URL(filePath: report))
    #expect(chmod(report, 0o644) == 0)
    let process = Process()
    process.executableURL = URL(filePath: "/bin/sh")
    process.arguments = [
      "-c", #"umask 0; "$0" inspect report "$1" -o "$2" >/dev/null"#, kvstoreCommand.path,
      fixture.configuration.path, report,
    ]
    try process.run()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    var status = stat()
    #expect(stat(report, &status) == 0 && status.st_mode & 0o7777 == 0o600 && status.st_size > 0)
    let names = try FileManager.default.contentsOfDirectory(atPath: fixture.folder.path)
    #expect(names.filter { $0.hasPrefix("report") } == ["report.html"])
  }
}

/// The command, beside the tests.
private let kvstoreCommand = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
  .deletingLastPathComponent().appending(path: "kvstore")
