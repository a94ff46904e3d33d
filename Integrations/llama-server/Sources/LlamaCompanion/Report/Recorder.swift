import Crypto
import Glibc
import Synchronization

/// Writes a trace that `kvstore replay` and `kvstore plan` read: one line for each request, with an id for each block instead of tokens.
///
/// The ids are keyed with a secret of this recording, so that they tell nothing but which prefixes are alike.
final class Recorder: Sendable {
  private struct State {
    var file: Int32
    var sessions: [UInt64: (number: Int, turns: Int)] = [:]
  }

  private let state: Mutex<State>
  private let key = SymmetricKey(size: .bits256)
  private let startMilliseconds = wallMilliseconds()

  init(_ path: String) throws {
    let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, mode_t(0o600))
    guard file >= 0 else { throw NotHelped("\(path): \(String(cString: strerror(errno)))") }
    state = Mutex(State(file: file))
  }

  deinit { state.withLock { _ = close($0.file) } }

  func add(_ exchange: Exchange, _ tokens: [Int32]) {
    let perBlock = PrefixStore.tokensPerBlock
    var ids: [String] = []
    var chain: [UInt8] = Array(exchange.tenant.utf8)
    for start in stride(from: 0, to: tokens.count - tokens.count % perBlock, by: perBlock) {
      let block = tokens[start..<start + perBlock].withUnsafeBytes { Array($0) }
      chain = Array(HMAC<SHA256>.authenticationCode(for: chain + block, using: key))
      // Below 2^53: every reader of JSON keeps it exactly.
      let id = chain.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) } >> 11
      ids.append(String(id))
    }
    state.withLock { state in
      var session = state.sessions[exchange.conversation] ?? (state.sessions.count + 1, 0)
      session.turns += 1
      // A recording of months does not remember every conversation.
      if state.sessions.count > 65_536 { state.sessions.removeAll() }
      state.sessions[exchange.conversation] = session
      let time = max(0, Int(exchange.timeMilliseconds - startMilliseconds))
      let line = """
        {"timestamp":\(time),"input_length":\(tokens.count),"output_length":0,"block_size":\(perBlock),\
        "session":\(session.number),"turn":\(session.turns),"hash_ids":[\(ids.joined(separator: ","))]}

        """
      let bytes = Array(line.utf8)
      _ = bytes.withUnsafeBytes { write(state.file, $0.baseAddress, $0.count) }
    }
  }
}
