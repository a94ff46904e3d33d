import Foundation
import KVFile
import KVTestSupport
import Testing

@Suite struct MemoryTests {
  @Test func alignedBufferIsAlignedAndZeroed() throws {
    for byteCount in [0, 1, 4095, 4097, 1 << 20] {
      let buffer = try AlignedBuffer(byteCount: byteCount, isZeroed: true)
      #expect(buffer.bytes.count == byteCount)
      #expect(UInt(bitPattern: buffer.bytes.baseAddress) % 4096 == 0)
      #expect(buffer.bytes.allSatisfy { $0 == 0 })
    }
  }

  /// Far more than the machine's memory: only touched pages count.
  @Test func anonymousMappingIsNotPaidForUnused() throws {
    let memory = try MappedMemory.anonymous(byteCount: 1 << 40)
    memory.atomicStore(7, at: (1 << 40) - 8)
    #expect(memory.atomicLoad(at: (1 << 40) - 8) == 7)
    #expect(memory.pointer(at: 1 << 40) == nil)
    #expect(memory.pointer(at: -1) == nil)
    #expect(throws: FileError(.map, .memory, errno: EINVAL)) {
      try MappedMemory.anonymous(byteCount: 0)
    }
  }

  @Test func sharedFileIsSeenByOtherMappings() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/leases"
    let file = try FileDescriptor.openNoFollow(path, ownedBy: nil)
    try file.makeZeros(byteCount: 8192)
    let first = try MappedMemory.shared(file, byteCount: 8192)
    let second = try MappedMemory.shared(
      FileDescriptor.openExistingNoFollow(path),
      byteCount: 8192
    )
    // What is behind the end of a file is a signal at the first touch.
    #expect(throws: FileError(.map, errno: ENODATA)) {
      try MappedMemory.shared(file, byteCount: 8200)
    }
    first.atomicStore(41, at: 4096)
    #expect(second.atomicFetchAdd(1, at: 4096) == 41)
    #expect(first.atomicLoad(at: 4096) == 42)
    #expect(!second.atomicCompareExchange(at: 4096, expected: 41, desired: 1))
    #expect(second.atomicCompareExchange(at: 4096, expected: 42, desired: 1))
    #expect(first.atomicLoad(at: 4096) == 1)
  }

  @Test func atomicAddsFromThreadsAllCount() async throws {
    let memory = try MappedMemory.anonymous(byteCount: 4096)
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<4 {
        group.addTask { for _ in 0..<10_000 { memory.atomicFetchAdd(1, at: 8) } }
      }
    }
    #expect(memory.atomicLoad(at: 8) == 40_000)
  }

  @Test func randomBytesDiffer() throws {
    let first = try randomBytes(count: 32)
    #expect(first.count == 32)
    #expect(try randomBytes(count: 32) != first)
    #expect(try randomBytes(count: 0) == [])
  }

  /// A record lock does not stop its own process; another one is refused and can name the holder.
  @Test func recordLockKeepsOtherProcessesOut() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/1.lock"
    let descriptor = try FileDescriptor.open(path, mode: .create)
    #expect(try descriptor.tryRecordLock())
    #expect(try descriptor.tryRecordLock())
    #expect(try descriptor.recordLockHolder() == nil)
    let script = """
      import fcntl, sys
      f = open(sys.argv[1], 'r+b')
      try:
          fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
      except OSError:
          sys.exit(3)
      """
    guard FileManager.default.isExecutableFile(atPath: "/usr/bin/python3") else { return }
    let child = Process()
    child.executableURL = URL(filePath: "/usr/bin/python3")
    child.arguments = ["-c", script, path]
    try child.run()
    child.waitUntilExit()
    #expect(child.terminationStatus == 3)
  }
}
