import KVCore
import NIOHTTP1

/// What a caller wants for the prefix of its request: headers `x-kvstore-…`, or the members of a `kvstore` object in the body.
struct Hints: Sendable {
  var lives = PrefixStore.Lives()
  /// Nothing evicts the prompt for so long.
  var pinSeconds: UInt64?
  /// An idle TTL is put off by so much at least.
  var keepAliveSeconds: UInt64?
  /// The name of the conversation, by which a later request means it.
  var session: String?
  /// The conversation is over with this request.
  var ends = false
  /// The request goes on from a summary: what the conversation's last one left is of no use any more.
  var isCompacted = false

  init() {}

  init(_ headers: HTTPHeaders, _ body: JSON?) {
    let object = body?["kvstore"]
    func number(_ name: String, _ header: String) -> UInt64? {
      if let text = headers.first(name: "x-kvstore-" + header) { return UInt64(text) }
      return object?[name]?.int.flatMap { UInt64(exactly: $0) }
    }
    // Of more than a pin may last, that much.
    func seconds(_ name: String, _ header: String) -> UInt64? {
      number(name, header).flatMap { $0 > 0 ? min($0, 90 * 86_400) : nil }
    }
    lives.timeToLive = seconds("ttl", "ttl").map { .idle(nanoseconds: $0 * 1_000_000_000) }
    lives.priority = number("priority", "priority").flatMap { $0 <= 100 ? UInt8($0) : nil }
    pinSeconds = seconds("pin", "pin")
    keepAliveSeconds = seconds("keep_alive", "keep-alive")
    func says(_ name: String) -> Bool {
      headers.first(name: "x-kvstore-" + name).map { $0 == "1" } ?? object?[name]?.bool ?? false
    }
    let name = headers.first(name: "x-kvstore-session") ?? object?["session"]?.string
    // As long as a session's name in the store may be.
    session = name.flatMap { (1...64).contains($0.utf8.count) ? $0 : nil }
    ends = says("end")
    isCompacted = says("compacted")
  }
}
