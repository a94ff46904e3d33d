/// How a value looks in a prompt, and whether two are the same but for the way they are written.
extension JSONDocument {
  /// Appends a value as a template writes it: keys in the order in which they stand, no white space between.
  ///
  /// Keys of objects that say how to cache and not what to say (`cache_control`) are left out.
  func appendRendered(_ node: Int, to target: inout [UInt8]) {
    switch kind(node) {
    case .string:
      // Not quoted again: the same text is the same whatever its escapes.
      target.append(UInt8(ascii: "\""))
      appendText(node, to: &target)
      target.append(UInt8(ascii: "\""))
    case .number: target.append(contentsOf: JSONNumber.rendered(rawBytes(node)))
    case .null, .bool: target.append(contentsOf: rawBytes(node))
    case .array:
      target.append(UInt8(ascii: "["))
      var isFirst = true
      for child in children(node) {
        if !isFirst { target.append(UInt8(ascii: ",")) }
        isFirst = false
        appendRendered(child, to: &target)
      }
      target.append(UInt8(ascii: "]"))
    case .object:
      target.append(UInt8(ascii: "{"))
      var isFirst = true
      for (key, value) in members(node) where !isString(key, "cache_control") {
        if !isFirst { target.append(UInt8(ascii: ",")) }
        isFirst = false
        appendRendered(key, to: &target)
        target.append(UInt8(ascii: ":"))
        appendRendered(value, to: &target)
      }
      target.append(UInt8(ascii: "}"))
    }
  }

  /// Keys and values of an object.
  func members(_ node: Int) -> [(key: Int, value: Int)] {
    guard kind(node) == .object else { return [] }
    var pairs: [(Int, Int)] = []
    var iterator = children(node)
    while let key = iterator.next(), let value = iterator.next() { pairs.append((key, value)) }
    return pairs
  }

  /// How two values differ.
  func difference(_ node: Int, from other: JSONDocument, _ otherNode: Int) -> JSONDifference {
    var collected = JSONDifference()
    collect(node, other, otherNode, &collected)
    return collected
  }

  private func collect(
    _ node: Int,
    _ other: JSONDocument,
    _ otherNode: Int,
    _ into: inout JSONDifference
  ) {
    guard kind(node) == other.kind(otherNode) else {
      return into.leaves.append((node, otherNode))
    }
    switch kind(node) {
    case .null: break
    case .bool:
      if rawBytes(node) != other.rawBytes(otherNode) { into.leaves.append((node, otherNode)) }
    case .number:
      let (a, b) = (rawBytes(node), other.rawBytes(otherNode))
      if JSONNumber.rendered(a) == JSONNumber.rendered(b) { return }
      if let value = JSONNumber.value(a), value == JSONNumber.value(b) {
        into.numbers.append((node, otherNode))
      } else {
        into.leaves.append((node, otherNode))
      }
    case .string:
      if textBytes(node) != other.textBytes(otherNode) { into.leaves.append((node, otherNode)) }
    case .array:
      let (a, b) = (Array(children(node)), Array(other.children(otherNode)))
      if a.count == b.count {
        for (mine, theirs) in zip(a, b) { collect(mine, other, theirs, &into) }
      } else {
        into.leaves.append((node, otherNode))
      }
    case .object: collectMembers(node, other, otherNode, &into)
    }
  }

  private func collectMembers(
    _ node: Int,
    _ other: JSONDocument,
    _ otherNode: Int,
    _ into: inout JSONDifference
  ) {
    let (mine, theirs) = (members(node), other.members(otherNode))
    let theirKeys = theirs.map { other.text($0.key) }
    let myKeys = mine.map { text($0.key) }
    guard Set(myKeys) == Set(theirKeys), mine.count == theirs.count else {
      // A key more or less: the object as a whole is another one.
      return into.leaves.append((node, otherNode))
    }
    if myKeys != theirKeys { into.keyOrders.append((node, otherNode)) }
    var places: [String: Int] = [:]
    for (place, key) in theirKeys.enumerated() { places[key] = place }
    for (index, member) in mine.enumerated() {
      guard let there = places[myKeys[index]] else { continue }
      collect(member.value, other, theirs[there].value, &into)
    }
  }
}

/// What differs between two values, as pairs of nodes.
struct JSONDifference {
  /// Values that are others.
  var leaves: [(node: Int, otherNode: Int)] = []
  /// Objects with the same keys in another order.
  var keyOrders: [(node: Int, otherNode: Int)] = []
  /// Equal numbers that are written in another way.
  var numbers: [(node: Int, otherNode: Int)] = []

  /// The same but for how it is written.
  var isOnlyForm: Bool { leaves.isEmpty }
}
