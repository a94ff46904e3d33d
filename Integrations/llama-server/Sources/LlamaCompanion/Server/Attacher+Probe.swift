import Glibc
import LlamaSlots

extension Attacher {
  /// What a probe found is not what it had left: the server works otherwise than we know, or somebody has used the slot meanwhile.
  struct NotAsLeft: Error {
    var problem: NotHelped
  }

  /// Lets the server save two short prompts, and takes only a layout that explains both to the last byte and that it takes back.
  ///
  /// Who uses the server without us may take the slot between two steps: then it is tried again.
  func probe(_ slots: JSON) async throws -> (SlotLayout, [UInt8], slot: Int) {
    var slots = slots
    for pause in [20, 100, 300] {
      do {
        return try await probeOnce(slots)
      } catch is NotAsLeft {
        try await Task.sleep(for: .milliseconds(pause))
        slots = try await server.get("/slots")
      }
    }
    return try await probeOnce(slots)
  }

  private func probeOnce(_ slots: JSON) async throws -> (SlotLayout, [UInt8], slot: Int) {
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
      throw NotAsLeft(problem: NotHelped("its slot files are not understood (\(error))"))
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
      throw NotAsLeft(problem: NotHelped("it does not restore slots"))
    }
    // A prompt shorter than a sliding window is computed again by every server.
    if layout.caches.count > 1 { return (layout, layout.encoded, slot) }
    let next = try await server.post(
      "/completion",
      "{\"prompt\":\(JSON.list(tokens[..<(prompt.count + 1)])),\"n_predict\":0,\"id_slot\":\(slot),\"cache_prompt\":true}"
    )
    guard next["timings"]?["cache_n"]?.int == prompt.count else {
      throw NotAsLeft(problem: NotHelped("it computes a restored prefix again"))
    }
    return (layout, layout.encoded, slot)
  }

  /// Whether the server goes on from a saved window as it is, though a cell is missing that it should want.
  func goesOnWithoutWindow(_ slot: Int, _ layout: SlotLayout, _ windowTokenCount: Int)
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
      let image = SlotImage(
        layout: layout,
        tokens: tokens,
        window: window,
        stream: file.caches.first?.stream ?? 0,
        sequence: file.caches.first?.sequence ?? 0
      )
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
  static func fill(
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
