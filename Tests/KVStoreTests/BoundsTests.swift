import Foundation
import KVAdmin
import KVCore
import KVStore
import Testing

/// A store that is full all the time, for a while: what lies on disk stays within the configured bytes.
@Suite struct BoundsTests {
  /// KVSTORE_BOUNDS_SECONDS asks for longer.
  private static let seconds =
    ProcessInfo.processInfo.environment["KVSTORE_BOUNDS_SECONDS"].flatMap { Double($0) } ?? 4

  /// Disk and archive full all the time, and what is in either used again.
  @Test func fullTiersKeepTheirBytes() throws {
    let archiveBytes = 12 << 20
    let fixture = try StoreFixture {
      $0.capacityBytes = 80 << 20
      $0.catalogBytes = 60 << 20
      $0.hostBytes = 12 << 20
      $0.archiveBytesMin = 1
      $0.archiveBytes = archiveBytes
      // A move that is given up, because the machine is slow, is a write more.
      $0.archiveLimitNanoseconds = 60_000_000_000
    }
    let namespaces = try [[131_072, 131_072], [500_000]].map {
      try fixture.store.openNamespace(StoreFixture.identity($0))
    }
    let path = fixture.configuration.path
    var number = 0
    let end = Date().addingTimeInterval(Self.seconds)
    while Date() < end || number < 100 {
      number += 1
      let namespace = namespaces[number % 2]
      try namespace.offload(QuotaTests.prompt(number, blocks: 4))
      if number % 3 == 0 { try fixture.store.flush() }
      // What left the disk a while ago.
      let earlier = max(0, number - 8 - number % 24 * 2)
      let (_, isRight) = try namespace.restore(QuotaTests.prompt(earlier, blocks: 4))
      #expect(isRight)
      let inArchive = try EvictionTests.diskBytes(path + "/archive")
      #expect(inArchive <= archiveBytes)
      #expect(try EvictionTests.diskBytes(path) - inArchive <= 80 << 20)
      if inArchive > archiveBytes { return }
    }
    try fixture.store.flush()
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksEvicted > 0 && statistics.blocksDemoted > 0)
    #expect(statistics.blocksPromoted > 0, "\(statistics)")
    #expect(try fixture.store.verify().findings.isEmpty)
    // Catalog and files agree; a file system may need a block for a file's extents.
    let onDisk = try EvictionTests.diskBytes(path + "/archive")
    #expect(abs(onDisk - Int(statistics.archiveBytesUsed)) <= 64 << 10)
    // Each tier writes what comes into it once, with a page of header and less than a page behind the payload.
    let intoDisk = statistics.offloadedBytes + statistics.promotedBytes
    #expect(Double(statistics.diskBytesWritten) <= 1.05 * Double(intoDisk))
    let pages = statistics.blocksDemoted * 2 * 4096
    #expect(statistics.archiveBytesWritten <= statistics.demotedBytesStored + pages)
    #expect(statistics.archiveBytesWritten >= statistics.demotedBytesStored)
  }

  @Test func aFullStoreKeepsItsBytes() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 80 << 20
      $0.catalogBytes = 6 << 20
      $0.hostBytes = 12 << 20
    }
    let sizes = [[131_072, 131_072], [65_536], [4_000], [500_000]]
    let namespaces = try sizes.map { sizes in
      try fixture.store.openNamespace(
        StoreFixture.identity(sizes),
        limits: NamespaceLimits(quotaBytes: sizes == [65_536] ? 8 << 20 : 0)
      )
    }
    let path = fixture.configuration.path
    var largest = 0
    var number = 0
    let end = Date().addingTimeInterval(Self.seconds)
    // Also on a slow machine until everything is full.
    while Date() < end || number < 120 {
      number += 1
      let namespace = namespaces[number % namespaces.count]
      let blocks = namespace.identity.regionByteCounts == [4_000] ? 60 : 6
      try namespace.offload(QuotaTests.prompt(number, blocks: blocks), priority: UInt8(number % 90))
      if number % 3 == 0 { try fixture.store.flush() }
      let onDisk = try EvictionTests.diskBytes(path)
      largest = max(largest, onDisk)
      #expect(onDisk <= 80 << 20)
      let catalog = try catalogBytes(path)
      #expect(catalog <= 6 << 20)
      if onDisk > 80 << 20 || catalog > 6 << 20 { return }
    }
    try fixture.store.flush()
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksEvicted > 0)
    #expect(largest > 40 << 20)
    #expect(statistics.catalogBytesUsed <= 6 << 20)
    // The accounting is that of the files.
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  private func catalogBytes(_ path: String) throws -> Int {
    let attributes = try FileManager.default.attributesOfItem(atPath: path + "/catalog.mdb")
    return attributes[.size] as? Int ?? .max
  }
}
