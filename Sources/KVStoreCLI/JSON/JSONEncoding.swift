/// Makes a `JSONValue` of an `Encodable`, in the one dialect of all commands (docs/json.md).
///
/// Foundation's encoder leaves out what is nil, throws at an infinity, and sorts the members.
enum JSONEncoding {
  static func value(_ value: some Encodable, path: [any CodingKey]) throws -> JSONValue {
    // The frequent ones first: of a large report there are a million.
    switch value {
    case let value as UInt64: return .number("\(value)")
    case let value as UInt32: return .number("\(value)")
    case let value as Int: return .number("\(value)")
    case let value as String: return .string(value)
    case let value as Bool: return .bool(value)
    case let value as Double: return JSONValue(value)
    case let value as Float: return JSONValue(Double(value))
    case let value as any FixedWidthInteger: return .number("\(value)")
    case let value as any StringMap: return try value.jsonObject(path: path)
    default: break
    }
    let node = JSONNode()
    try value.encode(to: NodeEncoder(codingPath: path, node: node))
    return node.value
  }

  /// `payloadByteCount` as a member: `payload_bytes`.
  ///
  /// Names that are in lower case already stay as they are.
  static func memberName(_ name: String) -> String {
    var words: [String] = []
    var word = ""
    let letters = Array(name)
    for (index, letter) in letters.enumerated() {
      // UUIDText is uuid_text, storeUUID store_uuid.
      let isStart =
        letter.isUppercase && index > 0
        && (!letters[index - 1].isUppercase
          || index + 1 < letters.count && letters[index + 1].isLowercase)
      if isStart, !word.isEmpty {
        words.append(word)
        word = ""
      }
      word += letter.lowercased()
    }
    words.append(word)
    for index in words.indices.dropLast().reversed()
    where words[index] == "byte" && ["count", "counts"].contains(words[index + 1]) {
      words.replaceSubrange(index...index + 1, with: ["bytes"])
    }
    return words.joined(separator: "_")
  }
}

/// A dictionary whose keys are data, and no names of members.
private protocol StringMap {
  func jsonObject(path: [any CodingKey]) throws -> JSONValue
}

extension Dictionary: StringMap where Key == String, Value: Encodable {
  fileprivate func jsonObject(path: [any CodingKey]) throws -> JSONValue {
    .object(
      try sorted { $0.key < $1.key }.map {
        (name: $0.key, value: try JSONEncoding.value($0.value, path: path))
      }
    )
  }
}

/// Where a value is gathered.
private final class JSONNode {
  enum Content {
    case value(JSONValue)
    case array([JSONNode])
    case object([(name: String, node: JSONNode)])
  }

  var content = Content.value(.null)

  var value: JSONValue {
    switch content {
    case .value(let value): value
    case .array(let nodes): .array(nodes.map(\.value))
    case .object(let members): .object(members.map { (name: $0.name, value: $0.node.value) })
    }
  }

  func append() -> JSONNode {
    let node = JSONNode()
    if case .array(var nodes) = content {
      content = .array([])
      nodes.append(node)
      content = .array(nodes)
    } else {
      content = .array([node])
    }
    return node
  }

  func member(_ name: String) -> JSONNode {
    let node = JSONNode()
    if case .object(var members) = content {
      content = .object([])
      members.append((name: name, node: node))
      content = .object(members)
    } else {
      content = .object([(name: name, node: node)])
    }
    return node
  }
}

private struct NodeEncoder: Encoder {
  let codingPath: [any CodingKey]
  let node: JSONNode
  var userInfo: [CodingUserInfoKey: Any] { [:] }

  func container<Key>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
    if case .value = node.content { node.content = .object([]) }
    return KeyedEncodingContainer(KeyedContainer(codingPath: codingPath, node: node))
  }

  func unkeyedContainer() -> any UnkeyedEncodingContainer {
    if case .value = node.content { node.content = .array([]) }
    return UnkeyedContainer(codingPath: codingPath, node: node)
  }

  func singleValueContainer() -> any SingleValueEncodingContainer {
    SingleContainer(codingPath: codingPath, node: node)
  }
}

private struct KeyedContainer<Key: CodingKey>: KeyedEncodingContainerProtocol {
  let codingPath: [any CodingKey]
  let node: JSONNode

  private func member(_ key: Key) -> JSONNode {
    node.member(JSONEncoding.memberName(key.stringValue))
  }

  func encodeNil(forKey key: Key) { _ = member(key) }

  func encode(_ value: some Encodable, forKey key: Key) throws {
    member(key).content = .value(try JSONEncoding.value(value, path: codingPath + [key]))
  }

  // What is absent is null, and not left out: every document of a kind has the same members.
  func encodeIfPresent(_ value: (some Encodable)?, forKey key: Key) throws {
    if let value { try encode(value, forKey: key) } else { encodeNil(forKey: key) }
  }
  func encodeIfPresent(_ value: Bool?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: String?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Double?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Float?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int8?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int16?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int32?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: Int64?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: UInt?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: UInt8?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: UInt16?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: UInt32?, forKey key: Key) throws { try optional(value, key) }
  func encodeIfPresent(_ value: UInt64?, forKey key: Key) throws { try optional(value, key) }

  private func optional(_ value: (some Encodable)?, _ key: Key) throws {
    if let value { try encode(value, forKey: key) } else { encodeNil(forKey: key) }
  }

  func nestedContainer<NestedKey>(
    keyedBy keyType: NestedKey.Type,
    forKey key: Key
  ) -> KeyedEncodingContainer<NestedKey> {
    NodeEncoder(codingPath: codingPath + [key], node: member(key)).container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
    NodeEncoder(codingPath: codingPath + [key], node: member(key)).unkeyedContainer()
  }

  func superEncoder() -> any Encoder { NodeEncoder(codingPath: codingPath, node: node) }

  func superEncoder(forKey key: Key) -> any Encoder {
    NodeEncoder(codingPath: codingPath + [key], node: member(key))
  }
}

private struct UnkeyedContainer: UnkeyedEncodingContainer {
  let codingPath: [any CodingKey]
  let node: JSONNode

  var count: Int { if case .array(let nodes) = node.content { nodes.count } else { 0 } }

  func encodeNil() { _ = node.append() }

  func encode(_ value: some Encodable) throws {
    node.append().content = .value(try JSONEncoding.value(value, path: codingPath))
  }

  func nestedContainer<NestedKey>(
    keyedBy keyType: NestedKey.Type
  ) -> KeyedEncodingContainer<NestedKey> {
    NodeEncoder(codingPath: codingPath, node: node.append()).container(keyedBy: keyType)
  }

  func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer {
    NodeEncoder(codingPath: codingPath, node: node.append()).unkeyedContainer()
  }

  func superEncoder() -> any Encoder { NodeEncoder(codingPath: codingPath, node: node.append()) }
}

private struct SingleContainer: SingleValueEncodingContainer {
  let codingPath: [any CodingKey]
  let node: JSONNode

  func encodeNil() { node.content = .value(.null) }

  func encode(_ value: some Encodable) throws {
    node.content = .value(try JSONEncoding.value(value, path: codingPath))
  }
}
