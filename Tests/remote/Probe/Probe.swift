import Glibc
import KVCore
import KVRedis
import KVRemote

/// Makes the calls of a client that a test asks for on standard input, a line each, and prints how each went and how long it took.
@main
struct Probe {
  static func main() {
    // A closed connection must not end a host that has not blocked it.
    signal(SIGPIPE, SIG_DFL)
    let arguments = Array(CommandLine.arguments.dropFirst())
    do {
      let objects = try open(arguments)
      while let line = readLine() {
        print(answer(line.split(separator: " ").map(String.init), objects))
        fflush(nil)
      }
      objects.close()
    } catch {
      print("0 error \(error)")
    }
  }

  /// `URL [name=value…]`.
  private static func open(_ arguments: [String]) throws -> RedisObjects {
    var configuration = try RedisConfiguration(url: arguments[0])
    for argument in arguments.dropFirst() {
      let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
      switch parts[0] {
      case "credentials": configuration.credentials = try RedisCredentials(file: parts[1])
      case "ca": configuration.tls?.certificateAuthorityFile = parts[1]
      case "certificate": configuration.tls?.certificateFile = parts[1]
      case "key": configuration.tls?.keyFile = parts[1]
      case "verify": configuration.tls?.verifiesServer = parts[1] == "yes"
      case "connect": configuration.connectMilliseconds = UInt64(parts[1]) ?? 250
      default: preconditionFailure(argument)
      }
    }
    return try RedisObjects(configuration)
  }

  /// Milliseconds, `ok` or `error`, and what came of it.
  ///
  /// A call is `COMMAND MILLISECONDS ARGUMENT…`.
  private static func answer(_ words: [String], _ objects: RedisObjects) -> String {
    guard words.count >= 2, let milliseconds = UInt64(words[1]) else { return "0 error what?" }
    let start = monotonicNanoseconds()
    let limit = deadline(after: milliseconds * 1_000_000)
    let rest = Array(words[2...])
    var text: String
    do throws(RemoteError) { text = "ok " + (try call(words[0], rest, objects, limit)) } catch {
      text = "error \(error)"
    }
    return "\((monotonicNanoseconds() - start) / 1_000_000) \(text)"
  }

  private static func call(
    _ command: String,
    _ words: [String],
    _ objects: RedisObjects,
    _ limit: UInt64
  ) throws(RemoteError) -> String {
    let names = words.map { RemoteName($0) }
    switch command {
    case "exist": return try objects.exist(names, deadline: limit).map { $0 ? "1" : "0" }.joined()
    case "many":
      // COUNT PREFIX
      let all = (0..<(Int(words[0]) ?? 0)).map { RemoteName("\(words[1])\($0)") }
      return String(try objects.exist(all, deadline: limit).count { $0 })
    case "put":
      // NAME BYTES TTL PIECES
      let object = Object(words[0], byteCount: Int(words[1]) ?? 0)
      let write = try objects.putIfAbsent(
        names[0],
        pieces: object.pieces(Int(words[3]) ?? 1),
        timeToLiveMilliseconds: UInt64(words[2]),
        deadline: limit
      )
      return "\(write)"
    case "get": return try get(names, objects, limit, isKept: true)
    case "skip": return try get(names, objects, limit, isKept: false)
    case "extend":
      try objects.extend(
        Array(names.dropFirst()),
        timeToLiveMilliseconds: UInt64(words[0]) ?? 0,
        deadline: limit
      )
      return ""
    case "remove": return String(try objects.remove(names, deadline: limit))
    case "list":
      var all: Set<String> = []
      var cursor: ListCursor?
      repeat {
        let page = try objects.list(prefix: names[0], after: cursor, deadline: limit)
        all.formUnion(page.names.map(\.text))
        cursor = page.next
      } while cursor != nil
      return "\(all.count) \(all.sorted().prefix(3).joined(separator: " "))"
    case "information":
      let all = try objects.information(deadline: limit)
      return
        "version=\(all.version.replacing(" ", with: "-")) used=\(all.usedByteCount ?? 0) max=\(all.byteCountMax ?? 0)"
        + " policy=\(all.evictionPolicy ?? "-") role=\(all.role ?? "-") nodes=\(all.nodes.joined(separator: ","))"
    case "chunks":
      // COUNT MODEL [KEY]
      return try Chunks.put(
        Int(words[0]) ?? 0,
        model: words[1],
        key: words.count > 2 ? Array(words[2].utf8) : nil,
        objects,
        limit
      )
    case "load": return Load(objects, prefix: words[0], seconds: Double(words[1]) ?? 1).run()
    default: return "what?"
    }
  }

  /// Of each object: how it was read; `damaged` when the bytes are not those of its name.
  private static func get(
    _ names: [RemoteName],
    _ objects: RedisObjects,
    _ limit: UInt64,
    isKept: Bool
  ) throws(RemoteError) -> String {
    var memory: [Int: UnsafeMutableRawBufferPointer] = [:]
    defer { for bytes in memory.values { bytes.deallocate() } }
    var texts = Array(repeating: "missing", count: names.count)
    do throws(RemoteError) {
      try objects.get(names, deadline: limit) { index, byteCount in
        guard isKept else { return nil }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        memory[index] = bytes
        return bytes
      } done: { index, read in
        if texts[index] != "missing" {
          texts[index] = "twice"
        } else {
          texts[index] = "\(read)".replacing(" ", with: "")
        }
        if case .whole(let byteCount) = read {
          let isSound =
            memory[index].map { Object(names[index].text, byteCount: byteCount).isEqual($0) }
            ?? false
          texts[index] = isSound ? "whole(\(byteCount))" : "damaged(\(byteCount))"
        }
      }
    } catch {
      // What came is worth as much as why the rest did not.
      return "\(texts.joined(separator: " ")) thrown:\("\(error)".replacing(" ", with: ""))"
    }
    return texts.joined(separator: " ")
  }
}
