/// A place in `/v1/messages` up to which a client wants its prompt kept: `cache_control`.
struct CacheBreakPoint: Sendable, Equatable {
  /// Behind which block it stands.
  enum Place: Sendable, Equatable {
    case tool(Int)
    case system(Int)
    case message(Int, block: Int)
  }

  /// What the hosted interface has: more are too many, shorter prefixes are not kept.
  static let countMax = 4
  static let tokenCountMin = 1024

  var place: Place
  /// 300 or 3600.
  var seconds: UInt64

  /// Of a request, in the order of the prompt; the last ones, where there are too many.
  static func all(in body: JSON) -> [CacheBreakPoint] {
    var result: [CacheBreakPoint] = []
    func add(_ holder: JSON, _ place: Place) {
      guard let seconds = seconds(holder["cache_control"]) else { return }
      result.append(CacheBreakPoint(place: place, seconds: seconds))
    }
    for (index, tool) in (body["tools"]?.elements ?? []).enumerated() { add(tool, .tool(index)) }
    for (index, block) in (body["system"]?.elements ?? []).enumerated() {
      add(block, .system(index))
    }
    let messages = body["messages"]?.elements ?? []
    for (index, message) in messages.enumerated() {
      for (number, block) in (message["content"]?.elements ?? []).enumerated() {
        add(block, .message(index, block: number))
      }
    }
    // For the whole request: its last block.
    if let seconds = seconds(body["cache_control"]), let last = messages.last {
      let block = max(0, (last["content"]?.elements.count ?? 0) - 1)
      let place = Place.message(messages.count - 1, block: block)
      if result.last?.place != place { result.append(.init(place: place, seconds: seconds)) }
    }
    return result.suffix(countMax)
  }

  private static func seconds(_ control: JSON?) -> UInt64? {
    guard let control, control["type"]?.string == "ephemeral" else { return nil }
    switch control["ttl"]?.string {
    case nil, "5m": return 300
    case "1h": return 3600
    default: return nil
    }
  }
}

/// A break point whose tokens were counted.
struct KeptPrefix: Sendable {
  var tokenCount: Int
  var seconds: UInt64
}
