import KVRemote
import Testing

@testable import KVRedis

/// Parses all of a stream in pieces; lent strings are taken as texts.
func replies(
  _ bytes: [UInt8],
  pieceByteCount: Int = .max,
  lendsBulk: Bool = false,
  limits: ReplyParser.Limits = .init()
) throws(ReplyParser.Violation) -> [Reply] {
  var parser = ReplyParser(limits: limits)
  var found: [Reply] = []
  var lentByteCount: Int?
  var lent: [UInt8] = []
  var start = 0
  while start < bytes.count {
    let piece = Array(bytes[start..<min(bytes.count, start + min(pieceByteCount, bytes.count))])
    start += piece.count
    var offset = 0
    while true {
      if let wanted = lentByteCount {
        let count = min(wanted - lent.count, piece.count - offset)
        lent += piece[offset..<offset + count]
        offset += count
        guard lent.count == wanted else { break }
        lentByteCount = nil
        parser.bulkWasTaken()
      }
      switch try parser.step(piece.span.bytes, from: &offset, lendsBulk: lendsBulk) {
      case .more: break
      case .bulk(let byteCount):
        lentByteCount = byteCount
        lent = []
        continue
      case .reply(.lentBulk):
        found.append(.text(lent))
        continue
      case .reply(let reply):
        found.append(reply)
        continue
      }
      break
    }
  }
  return found
}

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite struct ReplyParserTests {
  static let stream =
    "+OK\r\n-MOVED 3999 127.0.0.1:6381\r\n:-42\r\n$-1\r\n$0\r\n\r\n$5\r\nhe\r\no\r\n*-1\r\n*0\r\n"
    + "*2\r\n*2\r\n:1\r\n$1\r\na\r\n*1\r\n$-1\r\n_\r\n#t\r\n#f\r\n,3.25\r\n(12345678901234567890\r\n"
    + "!9\r\nERR no go\r\n=7\r\ntxt:abc\r\n%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n~1\r\n:7\r\n"
    + ">2\r\n+invalidate\r\n*1\r\n+k\r\n|1\r\n+ttl\r\n:9\r\n:5\r\n*2\r\n|1\r\n+x\r\n:1\r\n+y\r\n%0\r\n"

  // Computed: the leak checker does not see what enums in a static array refer to.
  static var expected: [Reply] {
    [
      .text(bytes("OK")), .error(ServerError(bytes("MOVED 3999 127.0.0.1:6381"))), .integer(-42),
      .null, .text([]), .text(bytes("he\r\no")), .null, .array([]),
      .array([.array([.integer(1), .text(bytes("a"))]), .array([.null])]), .null, .integer(1),
      .integer(0), .text(bytes("3.25")), .text(bytes("12345678901234567890")),
      .error(ServerError(bytes("ERR no go"))), .text(bytes("txt:abc")),
      .array([.text(bytes("a")), .integer(1), .text(bytes("b")), .array([.integer(2)])]),
      .array([.integer(7)]), .integer(5), .array([.text(bytes("y")), .array([])]),
    ]
  }

  @Test(arguments: Array(1...40) + [.max], [false, true])
  func everyTypeInPiecesOfEachLength(_ pieceByteCount: Int, _ lendsBulk: Bool) throws {
    let found = try replies(
      bytes(Self.stream),
      pieceByteCount: pieceByteCount,
      lendsBulk: lendsBulk
    )
    #expect(found == Self.expected)
  }

  /// Two pieces, cut at each byte.
  @Test func everyCut() throws {
    let stream = bytes(Self.stream)
    for cut in 1..<stream.count {
      var parser = ReplyParser()
      var found: [Reply] = []
      for piece in [Array(stream[..<cut]), Array(stream[cut...])] {
        var offset = 0
        while case .reply(let reply) = try parser.step(
          piece.span.bytes,
          from: &offset,
          lendsBulk: false
        ) {
          found.append(reply)
        }
      }
      #expect(found == Self.expected)
      #expect(parser.isBetweenReplies)
    }
  }

  @Test(arguments: [
    "x\r\n", "\r\n", ":\r\n", ":1a\r\n", ":9223372036854775808\r\n", "$-2\r\n", "$+\r\n", "*-2\r\n",
    "$9999999999\r\n", "*9999999999\r\n", "%9223372036854775807\r\n", "$3\r\nabcd\r\n",
    "$3\r\nabc\n\r",
    "+a\rb\r\n", "+a\nb\r\n", "#x\r\n", "$?\r\n", "=-1\r\n", "!-1\r\n", "%-1\r\n", "~-1\r\n",
    "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "*600000\r\n*600000\r\n",
    "HTTP/1.1 400 Bad Request\r\n",
  ])
  func whatIsNoReplyIsRefused(_ text: String) {
    for pieceByteCount in [1, 2, Int.max] {
      #expect(throws: ReplyParser.Violation.self) {
        try replies(bytes(text), pieceByteCount: pieceByteCount)
      }
    }
  }

  @Test func limitsHold() throws {
    var limits = ReplyParser.Limits()
    limits.lineByteCount = 8
    #expect(throws: ReplyParser.Violation.self) {
      try replies(bytes("+123456789\r\n"), limits: limits)
    }
    limits = .init()
    limits.byteCount = 10
    #expect(throws: ReplyParser.Violation.self) {
      try replies(bytes("*3\r\n$4\r\nabcd\r\n$4\r\nabcd\r\n$4\r\nabcd\r\n"), limits: limits)
    }
    limits = .init()
    limits.valueCount = 4
    #expect(throws: ReplyParser.Violation.self) {
      try replies(bytes("*2\r\n*2\r\n:1\r\n:1\r\n*2\r\n:1\r\n:1\r\n"), limits: limits)
    }
    limits = .init()
    limits.lentByteCount = 4
    #expect(throws: ReplyParser.Violation.self) {
      try replies(bytes("$5\r\nabcde\r\n"), lendsBulk: true, limits: limits)
    }
    // Each reply has its own count.
    limits = .init()
    limits.valueCount = 3
    limits.byteCount = 9
    let many = try replies(
      bytes(String(repeating: "*2\r\n:1\r\n:2\r\n", count: 100)),
      limits: limits
    )
    #expect(many.count == 100)
  }

  /// Lengths that come alone allocate nothing: a server cannot make us reserve what it does not send.
  @Test func announcedLengthsCostNothing() throws {
    for _ in 0..<1000 {
      let found = try replies(bytes("$8000000\r\nabc")) + replies(bytes("*262000\r\n:1\r\n"))
      #expect(found.isEmpty)
    }
  }
}

@Suite struct ServerErrorTests {
  private func error(_ text: String) -> ServerError { ServerError(bytes(text)) }

  @Test func codesMeanWhatTheServersMean() {
    #expect(error("OOM command not allowed when used memory > 'maxmemory'.").remoteError == .full)
    for text in [
      "NOAUTH Authentication required.", "WRONGPASS invalid username-password pair", "NOPERM no",
    ] {
      #expect(error(text).remoteError == .unauthorized)
    }
    for text in [
      "LOADING Redis is loading", "READONLY You can't write", "CLUSTERDOWN Hash slot not served",
      "MASTERDOWN Link", "TRYAGAIN x", "MISCONF x", "BUSY x", "ERR max number of clients reached",
    ] {
      #expect(error(text).remoteError == .unavailable)
    }
    #expect(error("ERR Protocol error: invalid bulk length").remoteError == .tooLarge)
    #expect(error("").remoteError == .refused(""))
  }

  /// Servers repeat arguments in their errors, and one of ours is a password.
  @Test(arguments: [
    "ERR unknown command 'AUTH', with args beginning with: 'hunter2'",
    "ERR unknown command `AUTH`, with args beginning with: `hunter2`, ",
    "ERR unknown subcommand or wrong number of arguments: \"hunter2\"",
    "ERR syntax error, near hunter2",
  ])
  func noArgumentsInMessages(_ text: String) {
    guard case .refused(let words) = error(text).remoteError else {
      Issue.record("not refused")
      return
    }
    #expect(!words.contains("hunter2"))
    #expect(words.hasPrefix("ERR "))
  }

  @Test func redirections() throws {
    let slot = try #require(KeySlot(number: 3999))
    #expect(
      error("MOVED 3999 127.0.0.1:6381").redirection
        == .init(slot: slot, host: "127.0.0.1", port: 6381, isOnce: false)
    )
    #expect(
      error("ASK 3999 ::1:6381").redirection
        == .init(slot: slot, host: "::1", port: 6381, isOnce: true)
    )
    #expect(
      error("MOVED 3999 :6381").redirection
        == .init(slot: slot, host: "", port: 6381, isOnce: false)
    )
    for text in [
      "MOVED", "MOVED 16384 a:1", "MOVED -1 a:1", "MOVED 1 a", "MOVED 1 a:0", "MOVED 1 a:65536",
      "MOVED x a:1", "MOVED 1 ?:1", "ERR 1 a:1", "MOVED 1 \(String(repeating: "a", count: 300)):1",
    ] {
      #expect(error(text).redirection == nil)
    }
  }
}

@Suite struct KeySlotTests {
  /// Vectors of the cluster specification, and of `CLUSTER KEYSLOT` of a server.
  @Test(arguments: [
    ("123456789", 12739), ("", 0), ("foo", 12182), ("{foo}bar", 12182), ("a{foo}b{bar}", 12182),
    ("{}foo", 9500), ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015), ("foo{bar}{zap}", 5061),
    ("{user1000}.following", 3443), ("{user1000}.followers", 3443),
  ])
  func slots(_ key: String, _ number: UInt16) {
    #expect(KeySlot(key: key.utf8).number == number)
  }

  @Test func openBraceAlone() {
    #expect(KeySlot(key: "a{b".utf8) != KeySlot(key: "b".utf8))
    #expect(KeySlot(key: "{".utf8).number < 16_384)
  }
}
