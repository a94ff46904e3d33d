import Foundation
import KVFile
import KVTestSupport
import Testing

/// The instrument of the fault and power-loss tests, tested itself.
@Suite struct FaultInjectingStorageTests {
  private func contents(_ path: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(filePath: path)))
  }

  @Test func theNthOperationFails() throws {
    let folder = try TemporaryFolder()
    let storage = FaultInjectingStorage()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: false)
    let ones = [UInt8](repeating: 1, count: 1000)
    storage.add(.init(.write, number: 2, errno: ENOSPC, landedByteCount: 10))
    try ones.withUnsafeBytes { try file.write($0, at: 0) }
    #expect(throws: FileError(.write, errno: ENOSPC)) {
      try ones.withUnsafeBytes { try file.write($0, at: 1000) }
    }
    #expect(try contents(folder.path + "/a").count == 1010)
    try ones.withUnsafeBytes { try file.write($0, at: 1000) }
    #expect(storage.count(of: .write) == 3)
  }

  @Test func afterAFailedSyncNothingIsWritten() throws {
    let folder = try TemporaryFolder()
    let storage = FaultInjectingStorage()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: false)
    storage.add(.init(.sync, number: 1, errno: EIO))
    #expect(throws: FileError(.sync, errno: EIO)) { try file.sync() }
    #expect(throws: FileError(.sync, errno: EIO)) { try file.sync() }
    #expect(throws: FileError(.write, errno: EIO)) {
      try [UInt8](repeating: 1, count: 8).withUnsafeBytes { try file.write($0, at: 0) }
    }
    #expect(storage.count(of: .sync) == 1)
  }

  @Test func afterAHaltNothingWorksUntilTheCrash() throws {
    let folder = try TemporaryFolder()
    let storage = FaultInjectingStorage()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: false)
    storage.halt(at: .sync, number: 1)
    #expect(throws: FileError(.sync, errno: EIO)) { try file.sync() }
    #expect(storage.isHalted)
    #expect(throws: FileError.self) {
      try storage.openFile(folder.path + "/b", mode: .create, direct: false)
    }
    try storage.crash(seed: 1)
    #expect(!storage.isHalted)
    #expect(throws: FileError(.read, errno: EIO)) {
      try file.read(into: [], at: 0)
    }
    _ = try storage.openFile(folder.path + "/b", mode: .create, direct: false)
  }

  /// Synced bytes survive every crash; of unsynced ones each sector is old or new, and over the seeds both happen.
  @Test func crashLosesOnlyWhatWasNotSynced() throws {
    var outcomes: Set<[Bool]> = []
    for seed in UInt64(1)...40 {
      let folder = try TemporaryFolder()
      let storage = FaultInjectingStorage()
      let path = folder.path + "/a"
      let file = try storage.openFile(path, mode: .create, direct: true)
      let old = [UInt8](repeating: 1, count: 8192)
      try old.withUnsafeBytes { try file.write($0, at: 0) }
      try file.sync()
      try storage.syncDirectory(folder.path)
      let new = [UInt8](repeating: 2, count: 2048)
      try new.withUnsafeBytes { try file.write($0, at: 1024) }
      try storage.crash(seed: seed)
      let after = try contents(path)
      #expect(after.count == 8192)
      #expect(after[..<1024].allSatisfy { $0 == 1 })
      #expect(after[3072...].allSatisfy { $0 == 1 })
      var sectors: [Bool] = []
      for start in stride(from: 1024, to: 3072, by: 512) {
        #expect(Set(after[start..<start + 512]).count == 1)
        sectors.append(after[start] == 2)
      }
      outcomes.insert(sectors)
    }
    #expect(outcomes.contains([true, true, true, true]))
    #expect(outcomes.contains([false, false, false, false]))
    #expect(outcomes.count > 3)
  }

  @Test func crashMayLoseAFileWhoseFolderWasNotSynced() throws {
    var survived: Set<Bool> = []
    for seed in UInt64(1)...20 {
      let folder = try TemporaryFolder()
      let storage = FaultInjectingStorage()
      let file = try storage.openFile(folder.path + "/a", mode: .createNew, direct: false)
      try file.allocate(byteCount: 4096)
      try file.sync()
      try storage.crash(seed: seed)
      survived.insert(try storage.fileExists(folder.path + "/a"))
    }
    #expect(survived == [true, false])
  }
}
