internal import KVCore
package import KVRemote

extension RedisObjects {
  /// Memory is that of all masters together; a bound, only if all have one.
  package func information(deadline: UInt64) throws(RemoteError) -> RemoteInformation {
    topology.refresh(deadline: deadline)
    let nodes = topology.masters().nodes
    var texts = [[String: String]?](repeating: nil, count: nodes.count)
    try each(nodes.map { Request(.node($0), ["INFO"]) }, deadline: deadline) { index, reply in
      if case .text(let bytes) = reply { texts[index] = Self.fields(bytes) }
    }
    var information = RemoteInformation()
    information.nodes = nodes.map(\.endpoint.description)
    let known = texts.compactMap(\.self)
    guard let first = known.first else {
      throw .protocolViolation("INFO has an answer of another type")
    }
    if let version = first["valkey_version"] {
      information.version = "valkey \(version)"
    } else if let version = first["redis_version"] {
      information.version = "redis \(version)"
    }
    let used = known.compactMap { $0["used_memory"].flatMap(UInt64.init) }
    if !used.isEmpty { information.usedByteCount = used.reduce(0, Self.sum) }
    let most = known.compactMap { $0["maxmemory"].flatMap(UInt64.init) }
    if !most.isEmpty, !most.contains(0) { information.byteCountMax = most.reduce(0, Self.sum) }
    information.evictionPolicy = first["maxmemory_policy"]
    information.role = first["role"] == "slave" ? "replica" : first["role"]
    return information
  }

  private static func sum(_ one: UInt64, _ other: UInt64) -> UInt64 {
    let (sum, overflow) = one.addingReportingOverflow(other)
    return overflow ? .max : sum
  }

  /// The lines `name:value` of INFO; values as far as they are printable.
  static func fields(_ bytes: [UInt8]) -> [String: String] {
    var fields: [String: String] = [:]
    for line in bytes.split(whereSeparator: { $0 == 0x0d || $0 == 0x0a }).prefix(4096) {
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { continue }
      let value = line[line.index(after: colon)...].prefix(256).filter { $0 >= 0x20 && $0 < 0x7f }
      fields[String(decoding: line[..<colon], as: UTF8.self)] = String(
        decoding: value,
        as: UTF8.self
      )
    }
    return fields
  }
}
