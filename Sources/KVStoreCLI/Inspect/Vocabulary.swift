import ArgumentParser
import FoundationEssentials
import KVVocabulary

/// Where the texts of token ids come from.
struct VocabularyOption: ParsableArguments {
  @Option(
    name: .customLong("vocabulary"),
    help: ArgumentHelp(
      "A model file (GGUF) or a JSON file with the tokens' texts, to show text beside ids.",
      discussion:
        "JSON: a list in the order of the ids, an object of texts to ids, or a tokenizer.json.",
      valueName: "file"
    ),
    completion: .file(extensions: ["gguf", "json"])
  )
  var path: String?

  func read() throws -> Vocabulary? { try path.map { try Vocabulary(path: $0) } }
}

/// The texts of token ids.
struct Vocabulary {
  private let texts: TokenTexts

  init(path: String) throws {
    guard !GGUFVocabulary.isGGUF(path: path) else {
      do throws(GGUFError) { texts = TokenTexts(try GGUFVocabulary(path: path)) } catch {
        throw CommandFailure("\(path): \(error.text)")
      }
      return
    }
    guard let data = FileManager.default.contents(atPath: path) else {
      throw CommandFailure("cannot read \(path)")
    }
    let file: VocabularyFile
    do { file = try JSONDecoder().decode(VocabularyFile.self, from: data) } catch {
      throw CommandFailure("\(path): not JSON")
    }
    guard let texts = file.texts else {
      throw CommandFailure("\(path): neither a list of texts nor an object of texts to ids")
    }
    self.texts = TokenTexts(map: texts.mapValues { Array($0.utf8) })
  }

  /// The tokens' texts one after the other; an unknown one as its number.
  func text(of tokens: [UInt32]) -> String { printable(texts.text(of: tokens)) }
}

extension GGUFError {
  /// In words.
  fileprivate var text: String {
    switch self {
    case .io(let code): "cannot be read: \(errorText(code))"
    case .notGGUF: "not a GGUF file"
    case .version(let version): "GGUF of version \(version), of which the metadata are not read"
    case .malformed(let offset): "the metadata are damaged, at byte \(offset)"
    case .noTokens: "the model file has no tokenizer.ggml.tokens"
    }
  }
}
