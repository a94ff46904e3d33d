internal import KVCore
package import KVRemote

extension RedisObjects {
  /// Goes through the masters one after another (SCAN); begins again when slots moved meanwhile.
  package func list(
    prefix: RemoteName,
    after cursor: ListCursor?,
    deadline: UInt64
  ) throws(RemoteError) -> (names: [RemoteName], next: ListCursor?) {
    topology.refresh(deadline: deadline)
    let (nodes, version) = topology.masters()
    var place = Place(version: version, node: 0, scan: "0")
    // A node's cursor means nothing to the one that took its slots over.
    if let cursor, let before = Place(cursor.text), before.version == version,
      before.node < nodes.count
    {
      place = before
    }
    guard place.node < nodes.count else { throw .unavailable }
    let request = Request(
      .node(nodes[place.node]),
      ["SCAN", place.scan, "MATCH", Self.pattern(prefix.text), "COUNT", "1000"]
    )
    guard let parts = try one(request, deadline: deadline).items, parts.count == 2,
      let scan = parts[0].string, !scan.isEmpty, scan.utf8.count <= 20,
      scan.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let keys = parts[1].items
    else { throw .protocolViolation("SCAN has an answer of another type") }
    let names = keys.compactMap { key -> RemoteName? in
      guard case .text(let bytes) = key, bytes.count <= 256,
        bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7f }), bytes.starts(with: prefix.text.utf8)
      else { return nil }
      return RemoteName(String(decoding: bytes, as: UTF8.self))
    }
    place.scan = scan
    if scan == "0" { place.node += 1 }
    return (names, place.node < nodes.count ? ListCursor(place.text) : nil)
  }

  private struct Place {
    var version: UInt64
    var node: Int
    var scan: String

    init(version: UInt64, node: Int, scan: String) {
      self.version = version
      self.node = node
      self.scan = scan
    }

    init?(_ text: String) {
      let parts = text.split(separator: " ")
      guard parts.count == 3, let version = UInt64(parts[0]), let node = Int(parts[1]), node >= 0
      else {
        return nil
      }
      self.init(version: version, node: node, scan: String(parts[2]))
    }

    var text: String { "\(version) \(node) \(scan)" }
  }

  /// What SCAN matches with a prefix, its special characters taken as they are.
  static func pattern(_ prefix: String) -> String {
    var pattern = ""
    for character in prefix {
      if "*?[]\\^".contains(character) { pattern.append("\\") }
      pattern.append(character)
    }
    return pattern + "*"
  }
}
