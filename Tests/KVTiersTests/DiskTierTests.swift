import Foundation
import KVCore
import KVFile
import KVTestSupport
import KVTiers
import Testing

@Suite struct DiskTierTests {
  static let slotByteCount = 8192

  let folder: TemporaryFolder
  let storage = FaultInjectingStorage()
  let tier: DiskTier

  init() throws {
    folder = try TemporaryFolder()
    tier = try DiskTier(folders: [.disk: storage.openFolder(folder.path)], direct: true)
  }

  private func id(_ file: UInt32) -> SlotFileID { SlotFileID(tier: .disk, file: file) }

  private func address(_ file: UInt32, _ slot: UInt32) -> SlotAddress {
    SlotAddress(tier: .disk, file: file, slot: slot)
  }

  private func filled(with mark: UInt8, byteCount: Int = slotByteCount) throws -> AlignedBuffer {
    let buffer = try AlignedBuffer(byteCount: byteCount)
    buffer.bytes.initializeMemory(as: UInt8.self, repeating: mark)
    return buffer
  }

  private func write(_ slots: [(SlotAddress, AlignedBuffer)]) throws {
    try tier.write(
      slots.map {
        DiskTier.Write(
          address: $0.0,
          slotByteCount: Self.slotByteCount,
          bytes: $0.1.readOnly
        )
      }
    )
  }

  /// The byte that a slot is full of, or nil if there are several.
  private func mark(of address: SlotAddress) throws -> UInt8? {
    let buffer = try AlignedBuffer(byteCount: Self.slotByteCount)
    let batch = tier.startReads([
      ReadRequest(
        address: address,
        slotByteCount: Self.slotByteCount,
        offset: 0,
        buffer: buffer.bytes
      )
    ])
    if let error = batch.wait(0) { throw error }
    return Set(buffer.bytes).count == 1 ? buffer.bytes[0] : nil
  }

  /// Until the commit that gives it up, another process finds its blocks, and so does who comes after a crash.
  @Test func aFileThatIsBeingGivenUpIsRead() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 4)
    try write([(address(1, 2), try filled(with: 9))])
    tier.giveUpFile(id(1))
    let other = try DiskTierTests(readingFrom: folder)
    #expect(try other.mark(of: address(1, 2)) == 9)
    tier.takeBackFile(id(1))
    #expect(try other.mark(of: address(1, 2)) == 9)
    let third = try DiskTierTests(readingFrom: folder)
    #expect(try third.mark(of: address(1, 2)) == 9)
    tier.giveUpFile(id(1))
    tier.removeFile(id(1))
    let last = try DiskTierTests(readingFrom: folder)
    #expect(throws: FileError.self) { try last.mark(of: address(1, 2)) }
  }

  private init(readingFrom folder: TemporaryFolder) throws {
    self.folder = folder
    tier = try DiskTier(folders: [.disk: storage.openFolder(folder.path)], direct: true)
  }

  @Test func neighboursGoOutInOneWriteAndReadBack() throws {
    try tier.createFile(id(0xAB), slotByteCount: Self.slotByteCount, slotCount: 8)
    #expect(FileManager.default.fileExists(atPath: folder.path + "/02000000ab.kvs"))
    let order: [UInt32] = [5, 2, 3, 1, 7]
    try write(try order.map { (address(0xAB, $0), try filled(with: UInt8($0))) })
    // 1-3, 5 and 7.
    #expect(storage.count(of: .write) == 3)
    try tier.sync(files: [id(0xAB)])
    #expect(tier.bytesWritten(.disk) == 5 * UInt64(Self.slotByteCount))
    #expect(tier.syncCount == 1)
    for slot in order { #expect(try mark(of: address(0xAB, slot)) == UInt8(slot)) }
    #expect(try mark(of: address(0xAB, 4)) == 0)
    #expect(tier.bytesRead(.disk) == 6 * UInt64(Self.slotByteCount))
  }

  /// A slot written in part ends the run, and the neighbour behind it is not shifted.
  @Test func partlyFilledSlotsStayInTheirPlaces() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 4)
    try write([
      (address(1, 0), try filled(with: 1)), (address(1, 1), try filled(with: 2, byteCount: 4096)),
      (address(1, 2), try filled(with: 3)),
    ])
    #expect(storage.count(of: .write) == 2)
    #expect(try mark(of: address(1, 0)) == 1)
    #expect(try mark(of: address(1, 1)) == nil)
    #expect(try mark(of: address(1, 2)) == 3)
  }

  /// Apart from each other, so that each slot is a call of its own.
  private func writeEverySecond(of slotCount: UInt32) throws {
    try write(
      try stride(from: 0, to: slotCount, by: 2).map {
        (address(1, $0), try filled(with: UInt8($0 + 1)))
      }
    )
  }

  private func write(everySecondOf slotCount: UInt32, _ error: Monitor<(any Error)?>) {
    do { try writeEverySecond(of: slotCount) } catch let failure {
      error.withLock { $0 = failure }
    }
  }

  @Test(.timeLimit(.minutes(5))) func severalWritesAreInFlightAtOnce() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 24)
    guard tier.isDirect == true else { return print("skipped: no O_DIRECT on this file system") }
    storage.hold(.write)
    let error = Monitor<(any Error)?>(nil)
    let thread = try #require(
      ServiceThread.start { write(everySecondOf: 24, error) }
    )
    #expect(storage.waitUntilHeld(4))
    #expect(storage.heldCount == 4)
    storage.release()
    thread.join()
    #expect(error.withLock { $0 } == nil)
    #expect(tier.bytesWritten(.disk) == 12 * UInt64(Self.slotByteCount))
    for slot in stride(from: UInt32(0), to: 24, by: 2) {
      #expect(try mark(of: address(1, slot)) == UInt8(slot + 1))
    }
    tier.close()
  }

  /// The error of one call is told when no other touches the memory any more.
  @Test(.timeLimit(.minutes(5))) func aFailedWriteEndsTheOthers() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 24)
    guard tier.isDirect == true else { return print("skipped: no O_DIRECT on this file system") }
    storage.add(.init(.write, number: storage.count(of: .write) + 1, errno: EIO))
    storage.hold(.write)
    let error = Monitor<(any Error)?>(nil)
    let thread = try #require(
      ServiceThread.start { write(everySecondOf: 24, error) }
    )
    #expect(storage.waitUntilHeld(4))
    storage.release()
    thread.join()
    #expect(error.withLock { $0 as? FileError } == FileError(.write, errno: EIO))
    #expect(storage.heldCount == 0)
    let count = storage.count(of: .write)
    storage.removeFaults()
    try writeEverySecond(of: 24)
    #expect(storage.count(of: .write) == count + 12)
    tier.close()
  }

  @Test func manyReadsAtOnceEachAnswerTheirSlot() throws {
    let slotCount: UInt32 = 64
    for file in UInt32(1)...2 {
      try tier.createFile(id(file), slotByteCount: Self.slotByteCount, slotCount: Int(slotCount))
      try write(
        try (0..<slotCount).map { (address(file, $0), try filled(with: UInt8(file * 64 + $0))) }
      )
    }
    let addresses = (0..<slotCount).flatMap { [address(2, $0), address(1, $0)] }
    let buffers = try addresses.map { _ in try AlignedBuffer(byteCount: Self.slotByteCount) }
    let batch = tier.startReads(
      zip(addresses, buffers).map {
        ReadRequest(
          address: $0,
          slotByteCount: Self.slotByteCount,
          offset: 0,
          buffer: $1.bytes
        )
      }
    )
    for index in addresses.indices.reversed() {
      #expect(batch.wait(index) == nil)
      let expected = UInt8(addresses[index].file * 64 + addresses[index].slot)
      #expect(buffers[index].bytes.allSatisfy { $0 == expected })
    }
    tier.close()
  }

  @Test func aFailedReadIsReportedForItselfOnly() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    let buffers = try (0..<3).map { _ in try AlignedBuffer(byteCount: Self.slotByteCount) }
    // The second lies behind the end of the file, the third in a file that is not there.
    let addresses = [address(1, 1), address(1, 2), address(9, 0)]
    let batch = tier.startReads(
      zip(addresses, buffers).map {
        ReadRequest(
          address: $0,
          slotByteCount: Self.slotByteCount,
          offset: 0,
          buffer: $1.bytes
        )
      }
    )
    #expect(batch.wait(0) == nil)
    #expect(batch.wait(1) == .endOfFile)
    #expect(batch.wait(2)?.isNotFound == true)
    tier.close()
  }

  /// Each step of making a file fails once: nothing is left behind, and the next try succeeds.
  @Test(arguments: [
    (FileOperation.open, ENFILE), (.allocate, ENOSPC), (.sync, EIO),
  ])
  func aFileThatCannotBeMadeLeavesNothing(operation: FileOperation, code: Int32) throws {
    storage.add(.init(operation, number: 1, errno: code))
    let error = #expect(throws: FileError.self) {
      try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 4)
    }
    #expect(error?.operation == operation && error?.errno == code)
    #expect(try LinuxStorage().list(folder.path) == [])
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 4)
    #expect(try mark(of: address(1, 3)) == 0)
  }

  @Test func aFileThatTheCatalogDoesNotKnowIsSetAside() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    try write([(address(1, 0), try filled(with: 9))])
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    #expect(try mark(of: address(1, 0)) == 0)
    // A crash right after it was made: nothing was ever written to it.
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    #expect(
      try LinuxStorage().list(folder.path).sorted() == [
        "0200000001-1.aside", "0200000001.kvs",
      ]
    )
    tier.giveUpFile(id(1))
    tier.takeBackFile(id(1))
    #expect(try mark(of: address(1, 0)) == 0)
    tier.giveUpFile(id(1))
    tier.removeFile(id(1))
    let aside = folder.path + "/0200000001-1.aside"
    #expect(try LinuxStorage().list(folder.path) == ["0200000001-1.aside"])
    #expect(try Data(contentsOf: URL(filePath: aside)).first == 9)
    #expect(throws: FileError(.open, errno: ENOENT)) { try mark(of: address(1, 0)) }
  }

  /// Not through the descriptor whose sync failed: what was written through it may be gone without another word.
  @Test func afterAFailedSyncTheFileIsOpenedAnew() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    try write([(address(1, 0), try filled(with: 1))])
    storage.add(.init(.sync, number: storage.count(of: .sync) + 1, errno: EIO))
    #expect(throws: FileError(.sync, errno: EIO)) { try tier.sync(files: [id(1)]) }
    let openCount = storage.count(of: .open)
    try write([(address(1, 0), try filled(with: 2))])
    try tier.sync(files: [id(1)])
    #expect(storage.count(of: .open) == openCount + 1)
    #expect(try mark(of: address(1, 0)) == 2)
  }

  /// What a file system that was read-only allowed no more than to read is written once it allows that.
  @Test func aFileThatWasReadOnlyIsTriedAgain() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    try write([(address(1, 0), try filled(with: 1))])
    let reopened = try DiskTier(
      folders: [.disk: storage.openFolder(folder.path)],
      direct: true
    )
    storage.add(.init(.open, number: storage.count(of: .open) + 1, errno: EROFS))
    let bytes = try filled(with: 3)
    // The refused opening was that of a read, which is content with less.
    let buffer = try AlignedBuffer(byteCount: 4096)
    let batch = reopened.startReads([
      ReadRequest(
        address: address(1, 0),
        slotByteCount: Self.slotByteCount,
        offset: 0,
        buffer: buffer.bytes
      )
    ])
    #expect(batch.wait(0) == nil && buffer.bytes[0] == 1)
    try reopened.write([
      .init(address: address(1, 1), slotByteCount: Self.slotByteCount, bytes: bytes.readOnly)
    ])
    try reopened.sync(files: [id(1)])
    #expect(try mark(of: address(1, 1)) == 3)
  }

  @Test func strayFilesAreSettledByWhatTheyAre() throws {
    for file in UInt32(1)...4 {
      try tier.createFile(id(file), slotByteCount: Self.slotByteCount, slotCount: 2)
    }
    // 1: its row was lost. 2: its maker died. 3: given up, its row went. 4: given up, its row stayed. 5: known.
    try write([(address(1, 1), try filled(with: 7)), (address(4, 0), try filled(with: 4))])
    tier.giveUpFile(id(3))
    tier.giveUpFile(id(4))
    try tier.createFile(id(5), slotByteCount: Self.slotByteCount, slotCount: 2)
    tier.settleStrayFiles(of: .disk, known: [id(4), id(5)], leaving: [])
    #expect(
      try LinuxStorage().list(folder.path).sorted() == [
        "0200000001-1.aside", "0200000004.kvs", "0200000005.kvs",
      ]
    )
    #expect(try mark(of: address(4, 0)) == 4)
    #expect(tier.setAsideByteCount(of: .disk) == 2 * Self.slotByteCount)
  }

  @Test func whatIsWrittenToARemovedFileIsNotDurable() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    try write([(address(1, 0), try filled(with: 1))])
    try LinuxStorage().remove(folder.path + "/0200000001.kvs")
    #expect(throws: FileError(.sync, errno: ENOENT)) { try tier.sync(files: [id(1)]) }
    // Its slots are still the catalog's: the file is made anew.
    try write([(address(1, 1), try filled(with: 2))])
    try tier.sync(files: [id(1)])
    #expect(try mark(of: address(1, 1)) == 2)
    #expect(try mark(of: address(1, 0)) == 0)
  }

  @Test func syncedSlotsSurvivePowerLoss() throws {
    for seed in UInt64(1)...10 {
      let file = UInt32(seed)
      let tier = try DiskTier(
        folders: [.disk: storage.openFolder(folder.path)],
        direct: true
      )
      try tier.createFile(id(file), slotByteCount: Self.slotByteCount, slotCount: 2)
      let (old, new) = (try filled(with: 1), try filled(with: 2))
      try tier.write([
        .init(address: address(file, 0), slotByteCount: Self.slotByteCount, bytes: old.readOnly)
      ])
      try tier.sync(files: [id(file)])
      try tier.write([
        .init(address: address(file, 1), slotByteCount: Self.slotByteCount, bytes: new.readOnly)
      ])
      try storage.crash(seed: seed)
      #expect(try mark(of: address(file, 0)) == 1, "seed \(seed)")
      tier.close()
    }
  }

  /// A read that comes after the threads were told to stop is answered all the same: nobody may wait for ever.
  @Test(.timeLimit(.minutes(1))) func readsAfterCloseAreAnswered() throws {
    try tier.createFile(id(1), slotByteCount: Self.slotByteCount, slotCount: 2)
    for _ in 0..<2 {
      let buffers = try (0..<2).map { _ in try AlignedBuffer(byteCount: Self.slotByteCount) }
      let batch = tier.startReads(
        buffers.enumerated().map {
          ReadRequest(
            address: address(1, UInt32($0.offset)),
            slotByteCount: Self.slotByteCount,
            offset: 0,
            buffer: $0.element.bytes
          )
        }
      )
      for index in 0..<2 { #expect(batch.wait(index) == nil) }
      tier.close()
    }
  }
}
