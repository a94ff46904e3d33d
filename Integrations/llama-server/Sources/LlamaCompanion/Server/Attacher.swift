import Crypto
import Glibc
import KVCore
import KVStore
import LlamaSlots

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
    let properties = try await server.properties()
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
      hasCheckpoints: process?.hasCheckpoints != false,
      buildInfo: build,
      modelName: name
    )
  }

  func resolve(_ path: String) throws -> String {
    if let modelPath { return modelPath }
    if path.hasPrefix("/") { return path }
    if let folder = ServerProcess(listeningAt: server.url)?.workingFolder {
      return folder + "/" + path
    }
    throw NotHelped("its model's path \(path) is relative: say where it is with --model")
  }
}
