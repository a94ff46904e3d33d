import Crypto
import Glibc
import KVCore
import KVStore
import LlamaSlots
import NIOHTTP1

/// One start of a server, and what was learnt about it: who it is, and what its slot files look like.
struct Attachment: Sendable {
  /// Its answer to `/props`: changes with every start, since a random mark is in it.
  var properties: [UInt8]
  var adapters: [UInt8]
  var model: FileStamp
  var slotCount: Int
  var layout: SlotLayout
  var identity: NamespaceIdentity
  var windowTokenCount: Int
  /// The server keeps more than the window (`--swa-full`) and believes that it has what no slot file holds: what was restored is gone on
  /// with at its end only.
  var hasFullWindow: Bool
  /// The server empties the slots that are idle when another one starts, as it does by default where all share one buffer.
  var clearsIdleSlots: Bool
  var buildInfo: String
  var modelName: String
}

/// Tells a file from another one that took its place.
struct FileStamp: Hashable, Sendable {
  var path: String
  var device: UInt64 = 0
  var inode: UInt64 = 0
  var byteCount: Int = 0
  var modified: Int = 0

  init?(_ path: String) {
    self.path = path
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    byteCount = Int(status.st_size)
    modified = status.st_mtim.tv_sec * 1_000_000_000 + status.st_mtim.tv_nsec
  }
}

/// Why a server's requests are passed on as they are.
struct NotHelped: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Gets to know a server.
struct Attacher: Sendable {
  let server: LlamaServer
  let folder: SlotFolder
  /// Where the model's file is, if the server's own path does not tell.
  let modelPath: String?
  let digests: DigestCache

  static let probeText = String(
    repeating: "The quick brown fox jumps over the lazy dog, and the dog sleeps on. ",
    count: 12
  )

  func attach() async throws -> Attachment {
    let properties = try await server.get("/props")
    guard let slotCount = properties["total_slots"]?.int, slotCount > 0 else {
      throw NotHelped(
        "it has no slots of its own (a router: put kvstore-llama before each model's server)"
      )
    }
    let slots: JSON
    do {
      slots = try await server.get("/slots")
    } catch let refusal as LlamaServer.Refusal {
      throw NotHelped("it does not show its slots (\(refusal.status)): start it with --slots")
    }
    let adapters = try await server.get("/lora-adapters")
    let path = try resolve(properties["model_path"]?.string ?? "")
    guard let stamp = FileStamp(path) else {
      throw NotHelped("its model \(path) cannot be read here: say where it is with --model")
    }
    let weights = try await digests.digest(ofModel: path)
    var adapterDigest = SHA256()
    adapterDigest.update(data: Array(adapters.raw))
    for adapter in adapters.elements {
      guard let file = adapter["path"]?.string, FileStamp(file) != nil else {
        throw NotHelped("its adapter cannot be read here")
      }
      adapterDigest.update(data: try await digests.digest(ofModel: file))
    }

    let process = ServerProcess(listeningAt: server.url)
    let (layout, byteLayout, slot) = try await probe(slots)
    let windowTokenCount = layout.caches.count > 1 ? (Self.slidingWindow(path) ?? 8192) : 0
    var hasFullWindow = false
    if windowTokenCount > 0 {
      if let process {
        hasFullWindow = process.has("--swa-full")
        if hasFullWindow, !process.has("--cache-ram", "0"), !process.has("-cram", "0") {
          throw NotHelped(
            "with --swa-full its own cache in RAM takes restored windows for whole ones: start it without, or with --cache-ram 0"
          )
        }
      } else if try await goesOnWithoutWindow(slot, layout, windowTokenCount) {
        throw NotHelped("it runs with --swa-full, and its other flags are not known here")
      }
    }
    _ = try await server.post("/slots/\(slot)?action=erase", "{}")
    let build = properties["build_info"]?.string ?? "unknown"
    let name = properties["model_alias"]?.string ?? path
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = PrefixStore.tokensPerBlock
    identity.regionByteCounts = PrefixStore.regionByteCounts(layout)
    identity.modelName = String(path.split(separator: "/").last ?? "model")
    identity.weightsDigest = weights
    identity.adapterDigest = Array(adapterDigest.finalize())
    identity.kvDtype = Set((layout.blockCache?.planes ?? []).map(\.type)).sorted()
      .map { "ggml type \($0)" }.joined(separator: ", ")
    identity.layout = "slot file: K of each layer, V of each layer"
    identity.engineFormat = "llama-server \(build), slot file \(layout.version)"
    var rest = SHA256()
    rest.update(data: byteLayout)
    // Some models turn positions otherwise where the context is long.
    let context = properties["default_generation_settings"]?["n_ctx"]?.text ?? ""
    rest.update(data: Array(context.utf8) + [0])
    // Flags can change what a token's bytes are, and no answer of the server tells them.
    for argument in process?.telling ?? [] { rest.update(data: Array(argument.utf8) + [0]) }
    identity.engineBytes = Array(rest.finalize())
    guard identity.regionByteCounts.count <= 4096 else { throw NotHelped("it has too many layers") }
    return Attachment(
      properties: Array(properties.raw),
      adapters: Array(adapters.raw),
      model: stamp,
      slotCount: slotCount,
      layout: layout,
      identity: identity,
      windowTokenCount: windowTokenCount,
      hasFullWindow: hasFullWindow,
      clearsIdleSlots: slotCount > 1 && process?.keepsIdleSlots != true,
      buildInfo: build,
      modelName: name
    )
  }

  private func resolve(_ path: String) throws -> String {
    if let modelPath { return modelPath }
    if path.hasPrefix("/") { return path }
    if let folder = ServerProcess(listeningAt: server.url)?.workingFolder {
      return folder + "/" + path
    }
    throw NotHelped("its model's path \(path) is relative: say where it is with --model")
  }

  // ---------------------------------------------------------------- the probe

  /// Lets the server save two short prompts, and takes only a layout that explains both to the last byte and that it takes back.
  private func probe(_ slots: JSON) async throws -> (SlotLayout, [UInt8], slot: Int) {
    let idle = slots.elements.filter { $0["is_processing"]?.bool == false }
    let empty = idle.first { ($0["n_prompt_tokens"]?.int ?? 0) == 0 }
    guard let slot = (empty ?? idle.last ?? slots.elements.last)?["id"]?.int else {
      throw NotHelped("it has no slots")
    }
    let body = "{\"content\":\(JSON.quoted(Self.probeText)),\"add_special\":true}"
    guard let tokens = try await server.post("/tokenize", body)["tokens"]?.tokens,
      tokens.count >= 80
    else { throw NotHelped("it does not tell tokens") }

    var files: [(MappedFile, [Int32])] = []
    for count in [45, 77] {
      let prompt = Array(tokens[..<count])
      _ = try await server.post(
        "/completion",
        "{\"prompt\":\(JSON.list(prompt)),\"n_predict\":0,\"id_slot\":\(slot),\"cache_prompt\":false}"
      )
      let name = folder.newName()
      defer { folder.remove(name) }
      do {
        _ = try await server.post("/slots/\(slot)?action=save", "{\"filename\":\"\(name)\"}")
      } catch let refusal as LlamaServer.Refusal {
        throw NotHelped(
          "it does not save slots (\(refusal.status)): start it with --slot-save-path \(folder.path)"
        )
      }
      guard folder.has(name) else {
        throw NotHelped("it saves slots elsewhere: start it with --slot-save-path \(folder.path)")
      }
      files.append((try folder.take(name), prompt))
    }
    let layout: SlotLayout
    do {
      layout = try Self.layout(of: files)
    } catch {
      throw NotHelped("its slot files are not understood (\(error))")
    }
    // It must take one back, as we make it, and go on from its end.
    let (file, prompt) = files[1]
    let parsed = try SlotFile(file.readable, stateByteCount: layout.stateByteCount)
    let image = SlotImage(
      layout: layout,
      tokens: prompt,
      window: parsed.caches.count > 1 ? parsed.caches[1].positions : []
    )
    let name = folder.newName()
    let copy = try folder.create(name, byteCount: image.byteCount)
    defer { folder.remove(name) }
    Self.fill(copy.bytes, image, from: parsed, file.readable)
    _ = try await server.post("/slots/\(slot)?action=erase", "{}")
    let answer = try await server.post(
      "/slots/\(slot)?action=restore",
      "{\"filename\":\"\(name)\"}"
    )
    guard answer["n_restored"]?.int == prompt.count else {
      throw NotHelped("it does not restore slots")
    }
    // A prompt shorter than a sliding window is computed again by every server.
    if layout.caches.count > 1 { return (layout, layout.encoded, slot) }
    let next = try await server.post(
      "/completion",
      "{\"prompt\":\(JSON.list(tokens[..<(prompt.count + 1)])),\"n_predict\":0,\"id_slot\":\(slot),\"cache_prompt\":true}"
    )
    guard next["timings"]?["cache_n"]?.int == prompt.count else {
      throw NotHelped("it computes a restored prefix again")
    }
    return (layout, layout.encoded, slot)
  }

  /// Whether the server goes on from a saved window as it is, though a cell is missing that it should want.
  private func goesOnWithoutWindow(_ slot: Int, _ layout: SlotLayout, _ windowTokenCount: Int)
    async throws -> Bool
  {
    let text = String(repeating: Self.probeText, count: windowTokenCount / 100 + 2)
    let body = "{\"content\":\(JSON.quoted(text)),\"add_special\":true}"
    guard let all = try await server.post("/tokenize", body)["tokens"]?.tokens,
      all.count > windowTokenCount + 64
    else { throw NotHelped("it does not tell tokens") }
    let tokens = Array(all[..<(windowTokenCount + 64)])
    func complete(_ tokens: some Sequence<Int32>) async throws -> JSON {
      try await server.post(
        "/completion",
        "{\"prompt\":\(JSON.list(tokens)),\"n_predict\":0,\"id_slot\":\(slot),\"cache_prompt\":true}"
      )
    }
    _ = try await complete(tokens.dropLast())
    let name = folder.newName()
    defer { folder.remove(name) }
    _ = try await server.post("/slots/\(slot)?action=save", "{\"filename\":\"\(name)\"}")
    _ = try await server.post("/slots/\(slot)?action=erase", "{}")
    _ = try await server.post("/slots/\(slot)?action=restore", "{\"filename\":\"\(name)\"}")
    return try await complete(tokens)["timings"]?["cache_n"]?.int == tokens.count - 1
  }

  static func layout(of files: [(MappedFile, [Int32])]) throws -> SlotLayout {
    let parsed: [SlotFile]
    if let plain = try? files.map({ try SlotFile($0.0.readable) }) {
      parsed = plain
    } else {
      // A rest that no cache explains is the state of recurrent layers if it is as long whatever the prompt.
      let candidates = try files.map { Set(try SlotFile.stateByteCount($0.0.readable)) }
      let common = candidates.dropFirst().reduce(candidates[0]) { $0.intersection($1) }
      guard let count = common.min() else { throw SlotFileError.unknownLayout }
      parsed = try files.map { try SlotFile($0.0.readable, stateByteCount: count) }
    }
    guard parsed.allSatisfy({ $0.layout == parsed[0].layout }) else {
      throw SlotFileError.unknownLayout
    }
    let layout = parsed[0].layout
    guard layout.caches.count <= 2 else {
      throw SlotFileError.unusable("more than two kinds of attention")
    }
    for (file, (mapped, tokens)) in zip(parsed, files) {
      guard file.tokens == tokens, !file.hasMedia, file.isInOrder else {
        throw SlotFileError.unusable("its tokens are not the prompt's")
      }
      let window = file.caches.count > 1 ? file.caches[1].positions : []
      guard window == Array(0..<Int32(file.caches.count > 1 ? tokens.count : 0)) else {
        throw SlotFileError.unusable("its window is not the whole of a short prompt")
      }
      let stream = file.caches.first?.stream ?? 0
      let image = SlotImage(layout: layout, tokens: tokens, window: window, stream: stream)
      var made = [UInt8](repeating: 0, count: image.byteCount)
      made.withUnsafeMutableBytes { fill($0, image, from: file, mapped.readable) }
      // Behind the tokens, which we write without their wrapping.
      let length = image.byteCount - (12 + 4 * tokens.count)
      let same = made.withUnsafeBytes {
        memcmp(
          $0.baseAddress! + (image.byteCount - length),
          mapped.readable.baseAddress! + (mapped.bytes.count - length),
          length
        ) == 0
      }
      guard same else { throw SlotFileError.unusable("made again, they differ") }
    }
    return layout
  }

  /// A file as it was saved, but made by us.
  private static func fill(
    _ target: UnsafeMutableRawBufferPointer,
    _ image: SlotImage,
    from file: SlotFile,
    _ bytes: UnsafeRawBufferPointer
  ) {
    image.writeHeaders(to: target)
    for (index, cache) in image.layout.caches.enumerated() {
      for (plane, (to, from)) in zip(
        cache.planes,
        zip(image.planeOffsets[index], file.caches[index].planeOffsets)
      ) {
        let count = file.caches[index].positions.count * plane.rowByteCount
        memcpy(target.baseAddress! + to, bytes.baseAddress! + from, count)
      }
    }
    if image.layout.stateByteCount > 0 {
      memcpy(
        target.baseAddress! + image.stateOffset,
        bytes.baseAddress! + file.state.lowerBound,
        image.layout.stateByteCount
      )
    }
  }

  /// The model's own word on its sliding window.
  static func slidingWindow(_ path: String) -> Int? {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 4 << 20)
    let count = bytes.withUnsafeMutableBytes { pread(file, $0.baseAddress, $0.count, 0) }
    guard count > 0 else { return nil }
    let key = Array(".attention.sliding_window".utf8)
    let end = count - key.count - 8
    guard end > 0,
      let at = (0..<end).first(where: {
        bytes[$0] == key[0] && bytes[$0..<$0 + key.count].elementsEqual(key)
      })
    else { return nil }
    func word(_ offset: Int) -> UInt32 {
      (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) }
    }
    // Of type u32 or i32.
    let kind = word(at + key.count)
    return kind == 4 || kind == 5 ? Int(word(at + key.count + 4)) : nil
  }
}

/// Digests of model files, which are long to read: kept for as long as a file is the same.
actor DigestCache {
  private var known: [FileStamp: [UInt8]] = [:]
  private let path: String

  /// Kept in the file `path` from one start to the next.
  init(path: String) {
    self.path = path
    guard let text = try? readFile(path) else { return }
    for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
      let fields = line.split(separator: " ", maxSplits: 5).map(String.init)
      guard fields.count == 6, var stamp = FileStamp(fields[5]) else { continue }
      let numbers = fields[1..<5].compactMap { Int($0) }
      guard numbers.count == 4 else { continue }
      // A file that has changed since has another stamp, and is not found.
      stamp.device = UInt64(numbers[0])
      stamp.inode = UInt64(numbers[1])
      stamp.byteCount = numbers[2]
      stamp.modified = numbers[3]
      var digest: [UInt8] = []
      var hex = Substring(fields[0])
      while hex.count >= 2, let byte = UInt8(hex.prefix(2), radix: 16) {
        digest.append(byte)
        hex = hex.dropFirst(2)
      }
      if digest.count == 32 { known[stamp] = digest }
    }
  }

  /// Of all parts, where the model is split.
  func digest(ofModel path: String) async throws -> [UInt8] {
    let parts = Self.parts(path)
    if parts.count == 1 { return try await digest(parts[0]) }
    var hasher = SHA256()
    for part in parts { hasher.update(data: try await digest(part)) }
    return Array(hasher.finalize())
  }

  private func digest(_ path: String) async throws -> [UInt8] {
    guard let stamp = FileStamp(path) else { throw NotHelped("\(path) cannot be read") }
    if let digest = known[stamp] { return digest }
    let digest = try await Task.detached { try Self.hash(path) }.value
    guard FileStamp(path) == stamp else { throw NotHelped("\(path) is being changed") }
    known[stamp] = digest
    let lines = known.map { stamp, digest in
      let hex = digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      return
        "\(hex) \(stamp.device) \(stamp.inode) \(stamp.byteCount) \(stamp.modified) \(stamp.path)"
    }
    try? writeFile(self.path, Array(lines.joined(separator: "\n").utf8))
    return digest
  }

  private static func hash(_ path: String) throws -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else {
      throw NotHelped("\(path) cannot be read: \(String(cString: strerror(errno)))")
    }
    defer { close(file) }
    var hasher = SHA256()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 << 20, alignment: 4096)
    defer { buffer.deallocate() }
    while true {
      let count = read(file, buffer.baseAddress, buffer.count)
      guard count >= 0 else { throw NotHelped("\(path): \(String(cString: strerror(errno)))") }
      if count == 0 { return Array(hasher.finalize()) }
      hasher.update(bufferPointer: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
  }

  /// `model-00001-of-00003.gguf` stands for three files.
  static func parts(_ path: String) -> [String] {
    let suffix = ".gguf"
    guard path.hasSuffix(suffix) else { return [path] }
    let stem = path.dropLast(suffix.count)
    guard stem.count > 15, let total = Int(stem.suffix(5)), (2...1000).contains(total),
      stem.dropLast(5).hasSuffix("-of-"), Int(stem.dropLast(9).suffix(5)) != nil
    else { return [path] }
    let base = stem.dropLast(14)
    func padded(_ number: Int) -> String {
      let text = String(number)
      return String(repeating: "0", count: 5 - text.count) + text
    }
    return (1...total).map { "\(base)\(padded($0))-of-\(padded(total))\(suffix)" }
  }
}

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
