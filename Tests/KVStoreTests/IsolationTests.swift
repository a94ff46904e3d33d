import Foundation
import KVAdmin
import KVCore
import KVStore
import Testing

/// Tenants see nothing of one another, and the rest of the machine sees nothing of the store.
@Suite struct IsolationTests {
  private static let salt = Array("a tenant's secret, long enough to be told from noise".utf8)
  private static let tenantA = StoreFixture.identity([8192]) { $0.salt = salt }
  private static let tenantB = StoreFixture.identity([8192]) { $0.salt = Array("another".utf8) }
  private static let unsalted = StoreFixture.identity([8192])
  private static let prompt = tokens(0..<40)

  private static func keys(_ namespace: Namespace) throws -> [BlockKey] {
    try Prompt.with(prompt) { (prompt) throws(StoreError) in try namespace.blockKeys(prompt) }
  }

  @Test func anotherSaltSharesAndRevealsNothing() throws {
    let fixture = try StoreFixture { $0.inlinePayloadBytesMax = 0 }
    let store = fixture.store
    let a = try store.openNamespace(Self.tenantA)
    let others = try [Self.tenantB, Self.unsalted].map { try store.openNamespace($0) }
    try a.offload(Self.prompt)
    try store.flush()
    for other in others {
      // Not a hit, not a byte, not a key in common.
      #expect(try other.match(Self.prompt).blockCount == 0)
      #expect(try other.peek(Self.prompt) == 0)
      #expect(try other.restore(Self.prompt).result.doneBlockCount == 0)
      #expect(try other.touch(Self.prompt) == 0)
      #expect(Set(try Self.keys(other)).isDisjoint(with: try Self.keys(a)))
      // Not a count.
      let summary = try #require(try store.inspector.namespaces().first { $0.id == other.id })
      #expect(summary.blockCount == 0 && summary.payloadByteCount == 0)
      for key in try Self.keys(a) {
        #expect(try store.inspector.block(other.id, key) == nil)
      }
      // What one tenant removes is its own.
      #expect(try other.forget(Self.prompt) == 0)
      #expect(try other.forget([]) == 0)
      #expect(try other.purge() == 0)
    }
    let (result, isRight) = try a.restore(Self.prompt)
    #expect(isRight && result.doneBlockCount == 10)
    // An offload of the same tokens is stored once more, not recognised.
    let offered = try others[0].offload(Self.prompt)
    #expect(offered.doneBlockCount == 10)
    try store.flush()
    #expect(try store.statistics().blocksDeduplicated == 0)
    #expect(try store.statistics().blocksStored == 20)
  }

  /// The same salt in another store makes other keys: they cannot be looked for from outside.
  @Test func saltedKeysAreOfOneStore() throws {
    let (first, second) = (try StoreFixture(), try StoreFixture())
    let salted = try [first, second].map { try Self.keys($0.store.openNamespace(Self.tenantA)) }
    #expect(Set(salted[0]).isDisjoint(with: salted[1]))
    let plain = try [first, second].map { try Self.keys($0.store.openNamespace(Self.unsalted)) }
    #expect(plain[0] == plain[1])
  }

  /// Every file 0600, every folder 0700, whatever the process's umask allows; and the salt in none of them.
  @Test func filesArePrivateAndHoldNoSalt() throws {
    let old = umask(0)
    defer { umask(old) }
    let fixture = try StoreFixture()
    let path = fixture.configuration.path
    for identity in [Self.tenantA, StoreFixture.identity([64]) { $0.salt = Self.salt }] {
      let namespace = try fixture.store.openNamespace(identity)
      try namespace.offload(Self.prompt)
      try fixture.store.flush()
      #expect(try namespace.forget(tokens(0..<20)) == 6)
    }
    try fixture.whileClosed { _ = try Store.repair(fixture.configuration) }
    let manager = FileManager.default
    let names = [""] + (try manager.subpathsOfDirectory(atPath: path))
    #expect(names.count > 10)
    for name in names {
      var status = stat()
      // A link has no mode of its own: what it leads to counts.
      #expect(stat(path + "/" + name, &status) == 0)
      let isFolder = status.st_mode & S_IFMT == S_IFDIR
      #expect(status.st_mode & 0o7777 == (isFolder ? 0o700 : 0o600), "\(name)")
      guard !isFolder else { continue }
      let bytes = [UInt8](try Data(contentsOf: URL(filePath: path + "/" + name)))
      #expect(bytes.ranges(of: Self.salt).isEmpty, "\(name)")
    }
  }
}
