/// The texts of token ids as JSON files have them; what is of another kind is passed over.
struct VocabularyFile: Decodable {
  /// Nil: neither a list of texts nor an object of texts to ids.
  let texts: [UInt32: String]?

  private struct Model: Decodable { var vocab: VocabularyFile? }
  private struct Added: Decodable {
    var id: Int?
    var content: String?
  }
  private enum Key: String, CodingKey {
    case model
    case added = "added_tokens"
  }
  /// A value of a type, nil where it is of another one.
  private struct Lossy<Value: Decodable>: Decodable {
    let value: Value?
    init(from decoder: any Decoder) throws {
      value = try? decoder.singleValueContainer().decode(Value.self)
    }
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let list = try? container.decode([Lossy<String>].self) {
      var texts: [UInt32: String] = [:]
      for (id, item) in list.enumerated() { texts[UInt32(id)] = item.value }
      self.texts = texts.isEmpty ? nil : texts
      return
    }
    // A tokenizer.json keeps it one or two levels down, and what was added to it beside it.
    if let file = try? decoder.container(keyedBy: Key.self),
      let model = try? file.decode(Model.self, forKey: .model), let inner = model.vocab
    {
      var texts = inner.texts ?? [:]
      for added in (try? file.decode([Lossy<Added>].self, forKey: .added)) ?? [] {
        if let id = added.value?.id, let text = added.value?.content {
          texts[UInt32(clamping: id)] = text
        }
      }
      self.texts = texts.isEmpty ? nil : texts
      return
    }
    let object = (try? container.decode([String: Lossy<Int>].self)) ?? [:]
    var texts: [UInt32: String] = [:]
    for (text, id) in object {
      if let id = id.value { texts[UInt32(clamping: id)] = text }
    }
    self.texts = texts.isEmpty ? nil : texts
  }
}
