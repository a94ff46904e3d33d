import Glibc

/// The process that serves, where it runs on this machine under our eyes.
struct ServerProcess {
  var arguments: [String]
  var environment: [String]
  var workingFolder: String?

  /// Finds who listens on the port of a URL like `http://127.0.0.1:8080`.
  init?(listeningAt url: String) {
    guard let port = url.split(separator: ":").last.flatMap({ UInt16($0.prefix { $0.isNumber }) })
    else {
      return nil
    }
    var inodes: Set<String> = []
    let wanted = String(port, radix: 16, uppercase: true)
    let suffix = ":" + String(repeating: "0", count: 4 - wanted.count) + wanted
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
      guard let bytes = try? readFile(table) else { continue }
      for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n").dropFirst() {
        let fields = line.split(separator: " ")
        // 0A: listening.
        guard fields.count > 9, fields[1].hasSuffix(suffix), fields[3] == "0A" else { continue }
        inodes.insert("socket:[\(fields[9])]")
      }
    }
    guard !inodes.isEmpty, let found = Self.owner(of: inodes) else { return nil }
    func list(_ name: String) -> [String] {
      let bytes = (try? readFile("/proc/\(found)/\(name)")) ?? []
      return bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }
    arguments = list("cmdline")
    environment = list("environ")
    workingFolder = Self.link("/proc/\(found)/cwd")
  }

  private static func owner(of inodes: Set<String>) -> String? {
    for process in folderEntries("/proc") where process.allSatisfy(\.isNumber) {
      for descriptor in folderEntries("/proc/\(process)/fd") {
        if let target = link("/proc/\(process)/fd/\(descriptor)"), inodes.contains(target) {
          return process
        }
      }
    }
    return nil
  }

  private static func link(_ path: String) -> String? {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = readlink(path, &buffer, buffer.count - 1)
    guard count > 0 else { return nil }
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Whether a flag was given, on the command line or as a variable.
  func has(_ flag: String, _ value: String? = nil) -> Bool {
    let variable =
      "LLAMA_ARG_"
      + flag.drop { $0 == "-" }.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
    let set = environment.first { $0.hasPrefix(variable + "=") }.map {
      String($0.dropFirst(variable.count + 1))
    }
    guard let value else {
      return arguments.contains(flag)
        || set.map { !["0", "false", "off"].contains($0.lowercased()) } == true
    }
    if let index = arguments.lastIndex(of: flag), index + 1 < arguments.count {
      return arguments[index + 1] == value
    }
    return set == value
  }

  /// Whether slots keep what they have while others start.
  var keepsIdleSlots: Bool {
    if has("--no-cache-idle-slots") || has("--cache-ram", "0") || has("-cram", "0") { return true }
    let isUnified =
      has("--kv-unified") || has("-kvu")
      || !(arguments.contains("-np") || arguments.contains("--parallel"))
    return !isUnified
  }

  /// Whether it can go back where a cache cannot be cut anywhere, as it can by default.
  var hasCheckpoints: Bool {
    !["--ctx-checkpoints", "-ctxcp", "--swa-checkpoints"].contains { has($0, "0") }
  }

  /// Flags that say where and for how many the server works, but not what a token's KV is.
  private static let indifferent: Set<String> = [
    "--port", "--host", "--slot-save-path", "--api-key", "--api-key-file", "-np", "--parallel",
    "-c",
    "--ctx-size", "-t", "--threads", "-tb", "--threads-batch", "-cram", "--cache-ram", "--alias",
    "-a",
    "--log-file", "-lv", "--verbosity", "--log-verbosity", "--timeout", "-to", "--threads-http",
    "-m", "--model", "--chat-template", "--chat-template-file", "-sps", "--slot-prompt-similarity",
    "--sleep-idle-seconds", "--prio",
  ]
  private static let indifferentSwitches: Set<String> = [
    "--cache-idle-slots", "--no-cache-idle-slots", "--metrics", "--props", "--slots", "--jinja",
    "--no-jinja",
    "--no-webui", "--no-ui", "-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified", "-v",
    "--verbose",
    "--log-disable", "--log-timestamps", "--log-prefix", "--no-warmup", "--mlock", "--no-mmap",
    "--mmap",
    "-cb", "--cont-batching", "-nocb", "--no-cont-batching",
  ]

  /// What is left of the command line and of the server's environment: all that can change a token's bytes.
  var telling: [String] {
    var result: [String] = []
    var index = 1
    while index < arguments.count {
      let argument = arguments[index]
      let name = String(argument.prefix { $0 != "=" })
      if Self.indifferent.contains(name) {
        index += argument.contains("=") ? 1 : 2
        continue
      }
      index += 1
      if !Self.indifferentSwitches.contains(name) { result.append(argument) }
    }
    let prefix = "LLAMA_ARG_"
    let kept = environment.filter { variable in
      guard variable.hasPrefix(prefix) else { return variable.hasPrefix("GGML_") }
      let name =
        "--"
        + variable.dropFirst(prefix.count).prefix { $0 != "=" }.lowercased()
        .map { $0 == "_" ? "-" : String($0) }.joined()
      return !Self.indifferent.contains(name) && !Self.indifferentSwitches.contains(name)
    }
    return result + kept.sorted()
  }
}
