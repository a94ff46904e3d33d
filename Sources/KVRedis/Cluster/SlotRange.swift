/// Slots that lie on one node, as `CLUSTER SLOTS` tells.
package struct SlotRange: Equatable {
  let slots: ClosedRange<UInt16>
  /// Empty: the host that answered.
  let host: String
  let port: UInt16
  let replicas: [RedisConfiguration.Endpoint]

  /// nil when the reply is no such map.
  package static func ranges(_ reply: Reply) -> [SlotRange]? {
    guard let items = reply.items else { return nil }
    var ranges: [SlotRange] = []
    for item in items {
      guard let parts = item.items, parts.count >= 3, let first = parts[0].number,
        let last = parts[1].number, first >= 0, first <= last, last < KeySlot.count,
        let master = endpoint(parts[2])
      else { return nil }
      let replicas = parts[3...].compactMap(endpoint)
      ranges.append(
        SlotRange(
          slots: UInt16(first)...UInt16(last),
          host: master.host,
          port: master.port,
          replicas: replicas
        )
      )
    }
    return ranges
  }

  private static func endpoint(_ reply: Reply) -> RedisConfiguration.Endpoint? {
    guard let parts = reply.items, parts.count >= 2, let port = parts[1].number,
      let portNumber = UInt16(exactly: port), portNumber > 0
    else { return nil }
    // Null or empty: the host that answered. "?": it does not know its own.
    let host = parts[0].string ?? ""
    guard host.utf8.count <= 255 else { return nil }
    return .init(host: host == "?" ? "" : host, port: portNumber)
  }
}
