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

extension RedisObjects {
  /// What is known of an object without reading it.
  package struct Object: Sendable, Equatable {
    package let byteCount: Int
    /// It never leaves by itself.
    package let isEndless: Bool
  }

  /// Of each name: the length and the life of what it names; nil where there is no string.
  package func objects(_ names: [RemoteName], deadline: UInt64) throws(RemoteError) -> [Object?] {
    var lengths = [Int?](repeating: nil, count: names.count)
    var lives = [Int64?](repeating: nil, count: names.count)
    let requests = names.map { Request("STRLEN", $0) } + names.map { Request("PTTL", $0) }
    var error: RemoteError?
    unsafe run(requests, deadline: deadline) { index, outcome in
      switch outcome {
      case .reply(let reply) where index < names.count:
        lengths[index] = reply.number.flatMap { Int(exactly: $0) }
      case .reply(let reply): lives[index - names.count] = reply.number
      // A list or the like: nothing that is an object.
      case .refused(let refusal) where refusal.code == "WRONGTYPE": break
      case .refused(let refusal): error = error ?? refusal.remoteError
      case .failed(let failure): error = error ?? failure
      case .bulk: break
      }
      return .goOn
    }
    if let error { throw error }
    return names.indices.map { index in
      // -2: there is none; -1: it has no end.
      guard let byteCount = lengths[index], byteCount >= 0, let life = lives[index], life != -2
      else {
        return nil
      }
      return Object(byteCount: byteCount, isEndless: life == -1)
    }
  }
}
