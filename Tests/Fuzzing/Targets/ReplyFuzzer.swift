import KVRedis

/// A stream of a server's replies, in pieces; the first byte says how long a piece is and who takes strings.
enum ReplyFuzzer {
  static func run(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    var limits = ReplyParser.Limits()
    limits.lentByteCount = 1 << 16
    limits.byteCount = 1 << 16
    let lendsBulk = first & 1 == 1
    // As one piece, and cut: the same replies, or the same refusal.
    let whole = parse(bytes[1...], limits, lendsBulk, pieceByteCount: .max)
    let cut = parse(bytes[1...], limits, lendsBulk, pieceByteCount: Int(first >> 1) + 1)
    precondition(whole == cut, "the cut changes the replies")
    FuzzTarget.keep(whole.replies.count)
  }

  private struct Outcome: Equatable {
    var replies: [Reply] = []
    var lentByteCount = 0
    var violation: ReplyParser.Violation?
  }

  private static func parse(
    _ stream: ArraySlice<UInt8>,
    _ limits: ReplyParser.Limits,
    _ lendsBulk: Bool,
    pieceByteCount: Int
  ) -> Outcome {
    var parser = ReplyParser(limits: limits)
    var outcome = Outcome()
    var rest = stream
    var lent = 0
    do throws(ReplyParser.Violation) {
      while !rest.isEmpty {
        let piece = Array(rest.prefix(pieceByteCount))
        rest = rest.dropFirst(piece.count)
        var offset = 0
        var isTaken = false
        while !isTaken {
          if lent > 0 {
            let count = min(lent, piece.count - offset)
            offset += count
            lent -= count
            outcome.lentByteCount += count
            if lent > 0 { break }
            parser.bulkWasTaken()
          }
          switch try parser.step(piece.span.bytes, from: &offset, lendsBulk: lendsBulk) {
          case .more: isTaken = true
          case .bulk(let byteCount):
            lent = byteCount
            if byteCount == 0 { parser.bulkWasTaken() }
          case .reply(let reply):
            outcome.replies.append(reply)
            // What the client asks of a reply.
            FuzzTarget.keep(Int(truncatingIfNeeded: reply.number ?? 0))
            if case .error(let error) = reply {
              FuzzTarget.keep(Int(error.redirection?.port ?? 0))
              FuzzTarget.keep("\(error.remoteError)".utf8.count)
            }
            FuzzTarget.keep(SlotRange.ranges(reply)?.count ?? -1)
          }
        }
      }
    } catch { outcome.violation = error }
    return outcome
  }

  /// Streams with each type of reply, and those that the client asks for.
  static var seeds: [[UInt8]] {
    let streams = [
      "+OK\r\n:1\r\n:-42\r\n$-1\r\n$5\r\nhello\r\n*-1\r\n",
      "-MOVED 3999 127.0.0.1:6381\r\n-ASK 1 ::1:7000\r\n-OOM no\r\n-ERR unknown command 'x'\r\n",
      "*2\r\n$1\r\n0\r\n*2\r\n$3\r\nkv1\r\n$3\r\nkv2\r\n",
      "*1\r\n*4\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:6379\r\n$2\r\nid\r\n*4\r\n$0\r\n\r\n:1\r\n_\r\n*0\r\n",
      "%1\r\n+a\r\n~1\r\n#t\r\n>1\r\n+x\r\n|1\r\n+a\r\n,1.5\r\n(123\r\n=5\r\ntxt:a\r\n!5\r\nERR x\r\n_\r\n",
      "$0\r\n\r\n$65536\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
      "*3\r\n$12\r\nvalkey 9.1.2\r\n:5\r\n%0\r\n",
    ]
    return streams.flatMap { stream in [UInt8(0), 1, 14, 255].map { [$0] + Array(stream.utf8) } }
  }
}
