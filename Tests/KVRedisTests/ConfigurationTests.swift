import Foundation
import KVFile
import KVRemote
import Testing

@testable import KVRedis

@Suite struct ConfigurationTests {
  @Test func urls() throws {
    var configuration = try RedisConfiguration(url: "redis://cache")
    #expect(configuration.endpoints == [.init(host: "cache", port: 6379)])
    #expect(configuration.tls == nil && configuration.database == 0)
    configuration = try RedisConfiguration(url: "rediss://me@a:1,[::1]:2,c/3")
    #expect(
      configuration.endpoints
        == [.init(host: "a", port: 1), .init(host: "::1", port: 2), .init(host: "c", port: 6379)]
    )
    #expect(configuration.endpoints[1].description == "[::1]:2")
    #expect(configuration.tls?.verifiesServer == true)
    #expect(configuration.userName == "me")
    #expect(configuration.database == 3)
  }

  @Test(arguments: [
    "cache", "http://a", "redis://", "redis://a:0", "redis://a:x", "redis://a:65536", "redis://a/x",
    "redis://a/-1", "redis://@a", "redis://a,", "redis://[::1", "redis://[::1]x", "redis://a b",
    "redis://a?tls=no", "redis://a#f", "redis://a:+1", "redis://a\r\nFLUSHALL",
  ])
  func whatIsNoURL(_ url: String) {
    #expect(throws: RedisConfiguration.InvalidURL.self) { try RedisConfiguration(url: url) }
  }

  @Test func aPasswordIsRefusedAndNotRepeated() {
    do throws(RedisConfiguration.InvalidURL) {
      _ = try RedisConfiguration(url: "redis://me:hunter2@cache")
      Issue.record("taken")
    } catch {
      #expect(error.reason.contains("credentials file"))
      #expect(!error.reason.contains("hunter2"))
    }
  }
}

@Suite struct CredentialsTests {
  private func withFile(_ text: String, mode: Int, _ body: (String) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "kvredis-\(UUID())").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    #expect(
      FileManager.default.createFile(
        atPath: path,
        contents: Data(text.utf8),
        attributes: [.posixPermissions: mode]
      )
    )
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    try body(path)
  }

  @Test func aPrivateFileIsRead() throws {
    for mode in [0o600, 0o400] {
      try withFile("user=kv\npassword=a b=c\n", mode: mode) { path in
        let credentials = try RedisCredentials(file: path)
        #expect(credentials.user == "kv")
        #expect(credentials.password == "a b=c")
      }
    }
    try withFile("password=x", mode: 0o600) { path in
      let credentials = try RedisCredentials(file: path)
      #expect(credentials.user == nil)
    }
  }

  @Test(arguments: [0o644, 0o640, 0o604, 0o660, 0o601, 0o700])
  func looserModesAreRefused(_ mode: Int) throws {
    try withFile("password=x", mode: mode) { path in
      #expect(throws: RedisCredentials.FileProblem.file(.looseMode(UInt32(mode)))) {
        try RedisCredentials(file: path)
      }
    }
  }

  @Test(arguments: [
    "", "x", "password=", "user=\npassword=x", "password=a\npassword=b", "key=a\npassword=b",
  ])
  func malformedFilesAreRefused(_ text: String) throws {
    try withFile(text, mode: 0o600) { path in
      #expect(throws: RedisCredentials.FileProblem.malformed) { try RedisCredentials(file: path) }
    }
  }

  @Test func whatIsNoFileIsRefused() {
    #expect(throws: RedisCredentials.FileProblem.file(.unsuitable)) {
      try RedisCredentials(file: "/dev/zero")
    }
    #expect(throws: RedisCredentials.FileProblem.self) {
      try RedisCredentials(file: "/does/not/exist")
    }
  }

  @Test func nothingPrintsThem() {
    let credentials = RedisCredentials(user: "kv", password: "hunter2")
    var text = "\(credentials) \(String(reflecting: credentials))"
    dump(credentials, to: &text)
    var configuration = try? RedisConfiguration(url: "redis://a")
    configuration?.credentials = credentials
    text += "\(String(describing: configuration))"
    dump(configuration as Any, to: &text)
    #expect(!text.contains("hunter2"))
  }
}

@Suite struct ReplyContentTests {
  @Test func slotMaps() {
    func node(_ host: Reply, _ port: Int64) -> Reply { .array([host, .integer(port), .text([])]) }
    let host = Reply.text(Array("10.0.0.1".utf8))
    let map = Reply.array([
      .array([.integer(0), .integer(5460), node(host, 6379), node(host, 6380)]),
      .array([.integer(5461), .integer(16_383), node(.null, 6381)]),
    ])
    let ranges = SlotRange.ranges(map)
    #expect(ranges?.count == 2)
    #expect(ranges?.first?.replicas == [.init(host: "10.0.0.1", port: 6380)])
    #expect(ranges?.last?.host == "")
    for bad: Reply in [
      .null, .array([.integer(1)]), .array([.array([.integer(0), .integer(1)])]),
      .array([.array([.integer(2), .integer(1), node(host, 1)])]),
      .array([.array([.integer(0), .integer(16_384), node(host, 1)])]),
      .array([.array([.integer(-1), .integer(1), node(host, 1)])]),
      .array([.array([.integer(0), .integer(1), node(host, 0)])]),
      .array([.array([.integer(0), .integer(1), node(host, 70_000)])]),
    ] {
      #expect(SlotRange.ranges(bad) == nil)
    }
  }

  @Test func informationLines() {
    let fields = RedisObjects.fields(
      Array("# Server\r\nredis_version:7.0.15\r\nx\r\ny:a:b\r\n".utf8)
    )
    #expect(fields == ["redis_version": "7.0.15", "y": "a:b"])
  }

  @Test func patternsTakePrefixesAsTheyAre() {
    #expect(RedisObjects.pattern("kv1:a*[b]?\\") == "kv1:a\\*\\[b\\]\\?\\\\*")
  }
}
