import Foundation
import KVTestSupport
import KVVocabulary
import Testing

/// The vocabulary of a model file, and files that are not what they say.
@Suite struct GGUFVocabularyTests {
  private static let tokens = ["<unk>", "▁the", "▁cat", "s", "<0x0A>", "ü", "\t"]

  private func withFile<R>(_ bytes: [UInt8], _ body: (String) throws -> R) throws -> R {
    let path = FileManager.default.temporaryDirectory.path + "/kvstore-\(UUID().uuidString).gguf"
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try body(path)
  }

  private func read(_ bytes: [UInt8]) throws -> GGUFVocabulary {
    try withFile(bytes) { try GGUFVocabulary(path: $0) }
  }

  @Test(arguments: [2, 3])
  func aModelsTokens(version: UInt32) throws {
    var builder = GGUFBuilder.model("llama", Self.tokens)
    builder.version = version
    let vocabulary = try read(builder.file)
    #expect(vocabulary.model == "llama")
    #expect(vocabulary.tokens == Self.tokens.map { Array($0.utf8) })
    let texts = TokenTexts(vocabulary)
    #expect(texts.text(of: [1, 2, 3, 4, 5, 6, 0]) == " the cats⏎ü⇥<unk>")
    #expect(texts.text(of: [2, 7, .max]) == " cat⟨7⟩⟨4294967295⟩")
    try withFile(builder.file) { #expect(GGUFVocabulary.isGGUF(path: $0)) }
  }

  /// The kind may stand behind the tokens, or be absent.
  @Test func theKindBehindTheTokens() throws {
    var builder = GGUFBuilder()
    builder.add(tokens: [Array("Ġa".utf8)])
    #expect(try read(builder.file).model.isEmpty)
    builder.add("tokenizer.ggml.model", "gpt2")
    #expect(try read(builder.file).model == "gpt2")
  }

  /// A character over two tokens, bytes that are no characters, text that is not in the table.
  @Test func bytesOfByteLevelTokens() throws {
    let tokens = ["Ġcaf", "Ã", "©", "Ċ", "<|end of text|>", "ĉ", "Ń", "日"]
    let texts = TokenTexts(try read(GGUFBuilder.model("gpt2", tokens).file))
    #expect(texts.text(of: [0, 1, 2, 3, 4]) == " café⏎<|end of text|>")
    #expect(texts.text(of: [1]) == "\u{FFFD}")
    #expect(texts.text(of: [5, 7]) == "⇥日")
    // The last character of the table is byte 0xAD, the soft hyphen, here as Latin-1's two bytes of UTF-8.
    #expect(TokenTexts(list: [Array("ÂŃ".utf8)], style: .byteLevel).text(of: [0]) == "\u{AD}")
  }

  @Test func textsByLooks() {
    let texts = TokenTexts(map: [7: Array("Ġa▁b".utf8), 9: Array("Ċ".utf8)])
    #expect(texts.text(of: [7, 9, 8]) == " a b⏎⟨8⟩")
  }

  @Test func whatIsRefused() throws {
    #expect(throws: GGUFError.notGGUF) { try read([]) }
    #expect(throws: GGUFError.notGGUF) { try read(Array("[\"a\"]".utf8)) }
    var builder = GGUFBuilder.model("llama", Self.tokens)
    builder.version = 1
    #expect(throws: GGUFError.version(1)) { try read(builder.file) }
    builder.version = UInt32(3).byteSwapped
    #expect(throws: GGUFError.version(UInt32(3).byteSwapped)) { try read(builder.file) }
    #expect(throws: GGUFError.noTokens) { try read(GGUFBuilder().file) }
    #expect(throws: GGUFError.noTokens) { try read(GGUFBuilder.model("llama", []).file) }
    #expect(throws: GGUFError.io(errno: ENOENT)) { try GGUFVocabulary(path: "/nowhere/at/all") }
    #expect(throws: GGUFError.io(errno: EINVAL)) { try GGUFVocabulary(path: "/dev/zero") }
  }

  /// Counts that are lies cost no more than the file has.
  @Test(arguments: [UInt64.max, 1 << 62, 1 << 40, 1 << 32])
  func countsThatAreLies(count: UInt64) throws {
    func expectMalformed(_ change: (inout GGUFBuilder) -> Void) {
      var builder = GGUFBuilder()
      change(&builder)
      let file = builder.file
      do {
        _ = try read(file)
        Issue.record("taken")
      } catch let error as GGUFError {
        guard case .malformed(let offset) = error else {
          Issue.record("\(error)")
          return
        }
        #expect((24...file.count).contains(offset))
      } catch { Issue.record("\(error)") }
    }
    expectMalformed { $0.entryCount = count }
    expectMalformed { $0.add("key", type: 8, GGUFBuilder.bytes(count)) }
    for elementType: UInt32 in [0, 4, 8, 9, 10] {
      expectMalformed { $0.add("key", elementType: elementType, count: count, []) }
    }
    expectMalformed { $0.add("tokenizer.ggml.tokens", elementType: 8, count: count, []) }
    expectMalformed { $0.add("tokenizer.ggml.tokens", elementType: 4, count: 1, [0, 0, 0, 0]) }
    expectMalformed { $0.add("key", type: 13, []) }
    // Arrays in arrays in arrays …
    let level = GGUFBuilder.bytes(UInt32(9)) + GGUFBuilder.bytes(UInt64(1))
    expectMalformed { $0.add("key", type: 9, Array(repeatElement(level, count: 9).joined())) }
  }

  /// Cut at every length, and with every byte changed: an answer or an error, never a trap.
  @Test func damagedFiles() throws {
    let file = GGUFBuilder.model("llama", Self.tokens).file
    let tail = 64 + 8 + "tokenizer.ggml.scores".utf8.count + 4 + 4 + 8 + 4
    for count in 0..<file.count {
      let result = Result { try read(Array(file[..<count])) }
      // Behind the tokens nothing is read.
      #expect((try? result.get()) == nil || count >= file.count - tail, "\(count) bytes")
    }
    var generator = SeededGenerator(seed: 1)
    for offset in file.indices {
      var damaged = file
      damaged[offset] ^= UInt8.random(in: 1...255, using: &generator)
      _ = try? read(damaged)
    }
  }

  /// A model of the real world, where there is one.
  @Test(.enabled(if: realModel != nil, "there is no model: KVSTORE_GGUF names one"))
  func aRealModel() throws {
    let vocabulary = try GGUFVocabulary(path: #require(realModel))
    #expect(vocabulary.tokens.count > 1000)
    #expect(!vocabulary.model.isEmpty)
    let texts = TokenTexts(vocabulary)
    let the = try #require(
      vocabulary.tokens.firstIndex { $0 == Array("▁the".utf8) || $0 == Array("Ġthe".utf8) }
    )
    #expect(texts.text(of: [UInt32(the)]) == " the")
  }
}

/// Named in the environment, or the one that Scripts/setup-llama fetches.
private let realModel: String? = {
  let environment = ProcessInfo.processInfo.environment
  if let path = environment["KVSTORE_GGUF"] { return path }
  let cache =
    environment["KVSTORE_CACHE"]
    ?? (environment["XDG_CACHE_HOME"] ?? (environment["HOME"] ?? "") + "/.cache") + "/kvstore"
  let folders = (try? FileManager.default.contentsOfDirectory(atPath: cache)) ?? []
  return folders.filter { $0.hasPrefix("gemma-") }.map { "\(cache)/\($0)/model.gguf" }
    .first { FileManager.default.isReadableFile(atPath: $0) }
}()
