import Glibc
import Synchronization

/// Writes completions in their own words, one line for each, with what the server computed: what `kvstore lint` reads.
///
/// The file is its owner's only: it holds the prompts of all callers.
final class TextRecorder: Sendable {
  private struct State {
    var file: Int32
    /// A line was not written to its end.
    var isBroken = false
  }

  private let state: Mutex<State>

  init(_ path: String) throws {
    let flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW
    let file = open(path, flags, mode_t(0o600))
    guard file >= 0 else { throw NotHelped("\(path): \(String(cString: strerror(errno)))") }
    state = Mutex(State(file: file))
  }

  deinit { state.withLock { _ = close($0.file) } }

  func add(_ exchange: Exchange, _ body: [UInt8]) {
    var line = Array(Self.head(exchange).utf8)
    // Between the values of JSON a line break is white space, and within them there is none.
    for byte in body { line.append(byte == 0x0A || byte == 0x0D ? 0x20 : byte) }
    line += Array("}\n".utf8)
    state.withLock { state in
      if state.isBroken { line.insert(0x0A, at: 0) }
      state.isBroken = !Self.writeAll(line, to: state.file)
    }
  }

  private static func head(_ exchange: Exchange) -> String {
    var members = [
      "\"time\":\(number(exchange.timeMilliseconds / 1_000))",
      "\"path\":\(JSON.quoted(exchange.path))",
    ]
    if !exchange.tenant.isEmpty { members.append("\"tenant\":\(JSON.quoted(exchange.tenant))") }
    if let passed = exchange.passed { members.append("\"passed\":\(JSON.quoted(passed))") }
    if exchange.tokenCount > 0 { members.append("\"tokens\":\(exchange.tokenCount)") }
    if let cached = exchange.cachedTokenCount { members.append("\"cached\":\(cached)") }
    if let computed = exchange.computedTokenCount { members.append("\"computed\":\(computed)") }
    return "{\(members.joined(separator: ",")),\"request\":"
  }

  private static func writeAll(_ bytes: [UInt8], to file: Int32) -> Bool {
    var at = 0
    while at < bytes.count {
      let count = bytes[at...].withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return false }
      at += count
    }
    return true
  }
}
