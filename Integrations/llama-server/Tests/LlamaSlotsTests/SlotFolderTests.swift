import Glibc
import Testing

@testable import LlamaSlots

@Suite struct SlotFolderTests {
  /// A file whose pages were made before is the one that would have been made: of its size, empty, and with its name.
  @Test(arguments: [12, 4096, 100_000, 1 << 20, (1 << 20) + 1, 3 << 20])
  func preparedFileHasItsSize(_ byteCount: Int) throws {
    var template = Array("/dev/shm/kvstore-slots.XXXXXX".utf8CString)
    let path = try #require(mkdtemp(&template).map { String(cString: $0) })
    defer { rmdir(path) }
    let folder = try SlotFolder(path)
    for isPrepared in [false, true, true] {
      if isPrepared { folder.prepare(byteCount: 1 << 20) }
      // Without a name, it is nowhere.
      #expect(!folder.has("a"))
      let made = try folder.create("a", byteCount: byteCount)
      #expect(made.bytes.count == byteCount)
      let isEmpty = made.bytes.allSatisfy { $0 == 0 }
      #expect(isEmpty)
      made.bytes[byteCount - 1] = 7
      var status = stat()
      #expect(stat(path + "/a", &status) == 0)
      #expect(status.st_size == byteCount)
      #expect(status.st_mode & 0o777 == 0o600)
      // All of it is there: nothing is left to be refused later.
      #expect(Int(status.st_blocks) * 512 >= byteCount)
      let taken = try folder.take("a")
      #expect(taken.bytes[byteCount - 1] == 7)
    }
  }
}
