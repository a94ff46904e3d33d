import Foundation
import KVFile
import KVTestSupport
import Testing

/// Where files are made: the disk, and tmpfs, which may refuse O_DIRECT.
enum Place: String, CaseIterable {
  case disk, memory

  func makeFolder() throws -> TemporaryFolder {
    switch self {
    case .disk: try TemporaryFolder()
    case .memory: try TemporaryFolder(in: "/dev/shm")
    }
  }
}

func randomBuffer(_ byteCount: Int, seed: UInt64) throws -> AlignedBuffer {
  var generator = SeededGenerator(seed: seed)
  let buffer = try AlignedBuffer(byteCount: byteCount)
  for index in 0..<byteCount { buffer.bytes[index] = UInt8.random(in: 0...255, using: &generator) }
  return buffer
}

func equal(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
  a.elementsEqual(b)
}

@Suite struct LinuxFileTests {
  let storage = LinuxStorage()

  @Test(arguments: Place.allCases, [true, false])
  func alignedTransfersRoundTrip(place: Place, direct: Bool) throws {
    let folder = try place.makeFolder()
    let file = try storage.openFile(folder.path + "/a", mode: .createNew, direct: direct)
    if !direct { #expect(!file.isDirect) }
    try file.allocate(byteCount: 64 << 10)
    #expect(try file.byteCount() == 64 << 10)
    #expect(try file.allocatedByteCount() >= 64 << 10)
    let bytes = try randomBuffer(16 << 10, seed: 1)
    try file.write(bytes.readOnly, at: 8192)
    try file.sync()
    try file.dropPageCache()
    let back = try AlignedBuffer(byteCount: 16 << 10)
    try file.read(into: back.bytes, at: 8192)
    #expect(equal(back.readOnly, bytes.readOnly))
  }

  /// Bytes that went past the cache are seen by those through it, and the other way round, whatever the alignment.
  @Test(arguments: Place.allCases, [UInt64](1...4))
  func anyAlignmentMatchesAModel(place: Place, seed: UInt64) throws {
    let folder = try place.makeFolder()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: true)
    var generator = SeededGenerator(seed: seed)
    let fileByteCount = 96 << 10
    try file.allocate(byteCount: UInt64(fileByteCount))
    var model = [UInt8](repeating: 0, count: fileByteCount)
    let memory = try randomBuffer(32 << 10, seed: seed)
    for step in 0..<40 {
      let isAligned = Bool.random(using: &generator)
      func pick(_ range: Range<Int>) -> Int {
        let value = Int.random(in: range, using: &generator)
        return isAligned ? value / 4096 * 4096 : value
      }
      var buffers: [UnsafeMutableRawBufferPointer] = []
      var byteCount = 0
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let start = pick(0..<20 << 10)
        let count = pick(0..<12 << 10)
        buffers.append(.init(rebasing: memory.bytes[start..<start + count]))
        byteCount += count
      }
      let offset = pick(0..<fileByteCount - byteCount)
      if Bool.random(using: &generator) {
        let parts = buffers.map { UnsafeRawBufferPointer($0) }
        try file.write(parts, at: UInt64(offset))
        model.replaceSubrange(offset..<offset + byteCount, with: parts.flatMap { Array($0) })
      } else {
        let back = try AlignedBuffer(byteCount: byteCount)
        try file.read(into: back.bytes, at: UInt64(offset))
        #expect(
          model[offset..<offset + byteCount].elementsEqual(back.readOnly),
          "seed \(seed) step \(step)"
        )
      }
    }
    #expect(try Data(contentsOf: URL(filePath: folder.path + "/a")).elementsEqual(model))
  }

  @Test func moreBuffersThanOneCallTakes() throws {
    let folder = try TemporaryFolder()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: false)
    let bytes = try randomBuffer(3000 * 3, seed: 2)
    let parts = (0..<3000).map {
      UnsafeRawBufferPointer(rebasing: bytes.readOnly[$0 * 3..<$0 * 3 + 3])
    }
    try file.write(parts, at: 5)
    let back = try AlignedBuffer(byteCount: 9000)
    let backParts = (0..<3000).map {
      UnsafeMutableRawBufferPointer(rebasing: back.bytes[$0 * 3..<$0 * 3 + 3])
    }
    try file.read(into: backParts, at: 5)
    #expect(equal(back.readOnly, bytes.readOnly))
  }

  @Test(arguments: [true, false]) func endOfFileIsAnError(direct: Bool) throws {
    let folder = try TemporaryFolder()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: direct)
    let bytes = try AlignedBuffer(byteCount: 8192, isZeroed: true)
    try file.write(UnsafeRawBufferPointer(rebasing: bytes.readOnly[..<5000]), at: 0)
    #expect(throws: FileError.endOfFile) { try file.read(into: bytes.bytes, at: 0) }
    #expect(throws: FileError.endOfFile) { try file.read(into: bytes.bytes, at: 1 << 20) }
    #expect(throws: FileError(.read, errno: EINVAL)) {
      try file.read(into: bytes.bytes, at: UInt64.max)
    }
    // Nothing to read is no error anywhere.
    try file.read(into: [], at: 1 << 20)
  }

  @Test func opensAsAsked() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/a"
    #expect(throws: FileError(.open, errno: ENOENT)) {
      try storage.openFile(path, mode: .existing, direct: true)
    }
    _ = try storage.openFile(path, mode: .createNew, direct: true)
    #expect(throws: FileError(.open, errno: EEXIST)) {
      try storage.openFile(path, mode: .createNew, direct: false)
    }
    let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    let bytes = try AlignedBuffer(byteCount: 4096, isZeroed: true)
    let readOnly = try storage.openFile(path, mode: .readOnly, direct: true)
    #expect(throws: FileError(.write, errno: EBADF)) { try readOnly.write(bytes.readOnly, at: 0) }
  }

  @Test func closedFileRefuses() throws {
    let folder = try TemporaryFolder()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: true)
    let bytes = try AlignedBuffer(byteCount: 4096, isZeroed: true)
    file.close()
    #expect(throws: FileError(.write, errno: EBADF)) { try file.write(bytes.readOnly, at: 0) }
    #expect(throws: FileError(.read, errno: EBADF)) { try file.read(into: bytes.bytes, at: 0) }
    #expect(throws: FileError(.sync, errno: EBADF)) { try file.sync() }
  }

  @Test func folderOperations() throws {
    let folder = try TemporaryFolder()
    let slots = folder.path + "/slots"
    try storage.makeDirectory(slots)
    try storage.makeDirectory(slots)
    let mode = try FileManager.default.attributesOfItem(atPath: slots)[.posixPermissions] as? Int
    #expect(mode == 0o700)
    _ = try storage.openFile(slots + "/a", mode: .create, direct: false)
    _ = try storage.openFile(slots + "/b", mode: .create, direct: false)
    try storage.syncDirectory(slots)
    try storage.rename(slots + "/b", to: slots + "/c")
    #expect(try storage.list(slots).sorted() == ["a", "c"])
    try storage.remove(slots + "/a")
    #expect(try !storage.fileExists(slots + "/a"))
    #expect(try storage.fileExists(slots + "/c"))
    #expect(try storage.freeByteCount(slots) > 0)
    #expect(throws: FileError.self) { try storage.remove(slots + "/a") }
    #expect(throws: FileError(.list, .directory, errno: ENOENT)) {
      try storage.list(folder.path + "/none")
    }
    #expect(throws: FileError(.sync, .directory, errno: ENOENT)) {
      try storage.syncDirectory(folder.path + "/none")
    }
  }

  @Test func moreRoomThanThereIsIsRefused() throws {
    let folder = try Place.memory.makeFolder()
    let file = try storage.openFile(folder.path + "/a", mode: .create, direct: false)
    let wanted = try storage.freeByteCount(folder.path) + (1 << 40)
    let error = #expect(throws: FileError.self) { try file.allocate(byteCount: wanted) }
    #expect(error?.isNoSpace == true)
  }
}
