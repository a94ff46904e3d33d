import Foundation
import KVAdmin
import KVCore
import KVStore
import KVTestSupport
import Testing

/// Many tenants, a salt each.
@Suite struct TenantsTests {
  private static func identity(_ number: Int) -> NamespaceIdentity {
    StoreFixture.identity([1000]) { $0.salt = Array("tenant \(number)".utf8) }
  }

  /// What one more namespace, or one more removal, reads of `identities.kvs` does not depend on how many there are.
  @Test func theLastTenantReadsNoMoreThanTheTenth() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture { $0.storage = storage }
    var newest: [Int] = []
    var forgotten: [Int] = []
    for number in 0..<500 {
      let before = storage.readByteCount
      let namespace = try fixture.store.openNamespace(Self.identity(number))
      newest.append(storage.readByteCount - before)
      guard number % 50 == 9 else { continue }
      try namespace.offload(QuotaTests.prompt(number))
      try fixture.store.flush()
      let start = storage.readByteCount
      #expect(try namespace.forget(Array(QuotaTests.prompt(number).prefix(4))) == 4)
      forgotten.append(storage.readByteCount - start)
    }
    #expect(newest[9...].max() == newest[9], "\(newest[9...20]) \(newest.suffix(10))")
    #expect(forgotten.max() == forgotten[0], "\(forgotten)")
    let path = fixture.configuration.path + "/identities.kvs"
    let byteCount = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
    #expect(byteCount > 50_000 && byteCount < 512 << 10)
    // It counts as the store's.
    let used = Int(clamping: try fixture.store.statistics().diskBytesUsed)
    let onDisk = try EvictionTests.diskBytes(fixture.configuration.path)
    #expect(used > onDisk - byteCount / 2 && used <= onDisk)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// A file without its first record, or with a torn one at its end, still gets what is appended, and the store's record once more
  /// only where it has none.
  @Test func aDamagedBeginningIsReadWhole() throws {
    let fixture = try StoreFixture()
    for number in 0..<3 { _ = try fixture.store.openNamespace(Self.identity(number)) }
    let path = fixture.configuration.path + "/identities.kvs"
    try fixture.whileClosed {
      var bytes = try Data(contentsOf: URL(filePath: path))
      bytes[50] ^= 1
      bytes.append(contentsOf: [1, 2, 3])
      try bytes.write(to: URL(filePath: path))
    }
    for number in 3..<6 { _ = try fixture.store.openNamespace(Self.identity(number)) }
    #expect(try fixture.store.verify().findings.isEmpty)
    let bytes = try Data(contentsOf: URL(filePath: path))
    let summary = unsafe bytes.withUnsafeBytes { unsafe IdentityFileSummary($0) }
    #expect(summary.hasStore && summary.identityCount == 6)
  }
}
