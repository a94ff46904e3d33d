import Foundation
import KVAdmin
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// The archive of a stopped store goes to another folder.
@Suite struct MoveArchiveTests {
  private static func prompt(_ number: Int) -> [UInt32] {
    (0..<40).map { UInt32(number * 100_000 + $0) }
  }

  /// A store with blocks in its archive, closed.
  private static func fixture() throws -> StoreFixture {
    let fixture = try StoreFixture {
      $0.evictionPolicy = .lru
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 48 << 20
      $0.hostBytes = 8 << 20
      $0.archiveBytesMin = 1
      $0.archiveBytes = 32 << 20
      $0.archiveFileBytes = 1 << 20
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
    for number in 0..<10 { try namespace.offload(prompt(number)) }
    try fixture.store.flush()
    #expect(try fixture.store.statistics().archiveBytesUsed > 0)
    try fixture.store.close()
    return fixture
  }

  /// All blocks are there, with their bytes; the store is sound.
  private static func check(_ fixture: StoreFixture, at path: String) throws {
    fixture.configuration.archivePath = path
    try fixture.reopenClosed()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
    for number in 0..<10 {
      let (result, isRight) = try namespace.restore(prompt(number))
      #expect(isRight && result.doneBlockCount == 10)
    }
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  private static func names(_ path: String) -> [String] {
    ((try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? []).sorted()
  }

  /// Out of the store's folder, then to a third one; nothing is left behind.
  @Test func itsFilesGoThere() throws {
    let fixture = try Self.fixture()
    let (one, two) = (fixture.folder.path + "/one", fixture.folder.path + "/two/deep")
    try FileManager.default.createDirectory(
      atPath: fixture.folder.path + "/two",
      withIntermediateDirectories: false
    )
    var told = 0
    let first = try Store.moveArchive(fixture.configuration, to: one) {
      told = max(told, $0 * ($0 == $1 ? 1 : 0))
    }
    #expect(first.fileCount > 0 && first.byteCount > 0 && told == first.byteCount)
    #expect(first.path.hasPrefix(one))
    let second = try Store.moveArchive(fixture.configuration, to: two)
    #expect(second.fileCount == first.fileCount && second.byteCount == first.byteCount)
    #expect(Self.names(one).isEmpty)
    let again = try Store.moveArchive(fixture.configuration, to: two)
    #expect(again.fileCount == 0 && again.path == second.path)
    #expect(!Self.names(fixture.configuration.path).contains("archive.new"))
    try Self.check(fixture, at: two)
  }

  @Test func itIsFoundWhereSomebodyMovedIt() throws {
    let fixture = try Self.fixture()
    let (one, two) = (fixture.folder.path + "/one", fixture.folder.path + "/two")
    _ = try Store.moveArchive(fixture.configuration, to: one)
    try FileManager.default.moveItem(atPath: one, toPath: two)
    let found = try Store.moveArchive(fixture.configuration, to: two)
    #expect(found.fileCount == 0)
    try Self.check(fixture, at: two)
  }

  @Test func anArchiveThatIsAwayIsNotReplaced() throws {
    let fixture = try Self.fixture()
    let (one, two) = (fixture.folder.path + "/one", fixture.folder.path + "/two")
    _ = try Store.moveArchive(fixture.configuration, to: one)
    try FileManager.default.moveItem(atPath: one, toPath: one + ".away")
    #expect(throws: StoreError.io(.createFolder, errno: ENOENT)) {
      try Store.moveArchive(fixture.configuration, to: two)
    }
    try FileManager.default.moveItem(atPath: one + ".away", toPath: one)
    try Self.check(fixture, at: one)
  }

  @Test func anotherStoresArchiveIsLeftAlone() throws {
    let fixture = try Self.fixture()
    let one = fixture.folder.path + "/one"
    let copy = fixture.folder.path + "/copy"
    try FileManager.default.copyItem(atPath: fixture.configuration.path, toPath: copy)
    _ = try Store.moveArchive(fixture.configuration, to: one)
    var ofCopy = fixture.configuration
    ofCopy.path = copy
    #expect(throws: StoreError.locked(.archiveOfAnother)) {
      try Store.moveArchive(ofCopy, to: one)
    }
    try Self.check(fixture, at: one)
  }

  @Test func notWhileItIsOpen() throws {
    let fixture = try Self.fixture()
    try fixture.reopenClosed()
    #expect(throws: StoreError.locked(.inUse)) {
      try Store.moveArchive(fixture.configuration, to: fixture.folder.path + "/one")
    }
  }

  /// Whatever it is that fails and all after it, the archive is whole in one place, and the same call goes on.
  @Test(arguments: [FileOperation.open, .rename, .remove, .write, .sync, .makeDirectory, .list])
  func aMoveThatEndsEarlyGoesOn(_ operation: FileOperation) throws {
    let original = try Self.fixture()
    var number = 0
    while true {
      number += 1
      let storage = FaultInjectingStorage()
      storage.halt(at: operation, number: number)
      var configuration = original.configuration
      configuration.storage = storage
      let path = original.folder.path + "/place \(number % 2)"
      if (try? Store.moveArchive(configuration, to: path)) != nil, !storage.isHalted {
        try Self.check(original, at: path)
        break
      }
      // The store as it is now: in the old place, or in the new one.
      let archive = original.configuration.path + "/archive"
      let target = try? FileManager.default.destinationOfSymbolicLink(atPath: archive)
      let at = target.map { URL(filePath: $0).deletingLastPathComponent().path } ?? ""
      try Self.check(original, at: at)
      try original.store.close()
      _ = try Store.moveArchive(original.configuration, to: path)
      try Self.check(original, at: path)
      try original.store.close()
      let names = try FileManager.default.contentsOfDirectory(atPath: original.configuration.path)
      #expect(!names.contains("archive.new"), "\(operation) \(number)")
      // Of many that are alike some.
      if number > 12 { number += 5 }
    }
    #expect(number > 1)
  }
}
