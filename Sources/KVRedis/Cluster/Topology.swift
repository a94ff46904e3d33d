internal import KVCore
internal import KVRemote

/// Which node has which slot: asked for once, mended by redirections, asked for again when nodes fail.
///
/// A server outside a cluster is a node that has all of them.
final class Topology: Sendable {
  private struct State {
    var nodes: [RedisConfiguration.Endpoint: Node] = [:]
    /// Of each slot, an index in `masters`.
    var slots = [UInt16](repeating: 0, count: KeySlot.count)
    var masters: [Node] = []
    var isCluster = false
    /// The map was never asked for, or is doubtful.
    var isStale = true
    var isBeingAsked = false
    var nextAskTime: UInt64 = 0
    var isClosed = false
    /// Changes with each change of the map.
    var version: UInt64 = 0

    /// Outside a cluster nobody else has what a server has.
    mutating func doubt() { isStale = isStale || isCluster }
  }

  private let state: Monitor<State>
  private let configuration: RedisConfiguration
  private let settings: ConnectionSettings
  private let resolver = NameResolver()
  private static let nodeCountMax = 1024
  /// So often at most the map is asked for.
  private static let askNanoseconds: UInt64 = 200_000_000

  init(_ configuration: RedisConfiguration, _ settings: ConnectionSettings) {
    self.configuration = configuration
    self.settings = settings
    state = Monitor(State())
    state.withLock { state in
      for endpoint in configuration.endpoints {
        if let node = node(endpoint, &state) { state.masters.append(node) }
      }
    }
  }

  private func node(_ endpoint: RedisConfiguration.Endpoint, _ state: inout State) -> Node? {
    if let node = state.nodes[endpoint] { return node }
    guard state.nodes.count < Self.nodeCountMax else { return nil }
    let node = Node(endpoint, settings, resolver, idleCountMax: configuration.connectionCount)
    state.nodes[endpoint] = node
    return node
  }

  var isClosed: Bool { state.withLock { $0.isClosed } }

  var isCluster: Bool { state.withLock { $0.isCluster } }

  /// The node that has a slot, as far as is known.
  func node(of slot: KeySlot) -> Node? {
    state.withLock { state in
      let index = Int(state.slots[Int(slot.number)])
      return index < state.masters.count ? state.masters[index] : nil
    }
  }

  /// All masters, in an order that stays while the map does, and the map's version.
  func masters() -> (nodes: [Node], version: UInt64) {
    state.withLock { state in
      let used = state.isCluster ? Set(state.slots) : [0]
      let nodes = state.masters.enumerated().filter { used.contains(UInt16($0.offset)) }.map(
        \.element
      )
      return (nodes.sorted { $0.endpoint.description < $1.endpoint.description }, state.version)
    }
  }

  // MARK: What changes it

  /// A node said where a slot is; the node there, or nil when it is none of the cluster's.
  ///
  /// Credentials and KV go only to nodes that the URL or the cluster's map names: a reply to some request does not add one. A node that joined just
  /// now is known by the next map, which is asked for then.
  func redirected(_ redirection: ServerError.Redirection, by node: Node) -> Node? {
    let host = redirection.host.isEmpty ? node.endpoint.host : redirection.host
    return state.withLock { state in
      guard let target = state.nodes[.init(host: host, port: redirection.port)] else {
        state.isStale = true
        return nil
      }
      if redirection.isOnce { return target }
      state.isCluster = true
      // One slot moved; where the others went is worth asking.
      state.isStale = true
      var index = state.masters.firstIndex { $0 === target }
      if index == nil, state.masters.count < Self.nodeCountMax {
        index = state.masters.count
        state.masters.append(target)
      }
      if let index { state.slots[Int(redirection.slot.number)] = UInt16(index) }
      state.version += 1
      return target
    }
  }

  /// A node cannot serve what should be its own.
  func noteUnavailable() { state.withLock { $0.doubt() } }

  /// A node did not answer: another one may have its slots by now.
  func noteFailure(of node: Node) {
    node.noteFailure()
    state.withLock { $0.doubt() }
  }

  /// Asks for the map if it is doubtful and was not asked for a moment ago.
  ///
  /// Without an answer the old map stays. One thread asks; the others go by what is known.
  func refresh(deadline: UInt64) {
    let asked = state.withLock { state -> [Node]? in
      let now = monotonicNanoseconds()
      guard state.isStale, !state.isBeingAsked, !state.isClosed, now >= state.nextAskTime else {
        return nil
      }
      state.isBeingAsked = true
      state.nextAskTime = now + Self.askNanoseconds
      // Those that answered lately first; a few, since one answer is enough.
      let nodes = Array(state.nodes.values)
      let awake = nodes.filter { !$0.isPaused }
      return Array((awake.isEmpty ? nodes : awake).shuffled().prefix(8))
    }
    guard let asked else { return }
    let answer = ask(asked, deadline: deadline)
    state.withLock { state in
      state.isBeingAsked = false
      guard let answer else { return }
      switch answer.reply {
      case .map(let ranges): enter(ranges, from: answer.node, &state)
      case .noCluster: state.isStale = false
      }
    }
  }

  private enum Map {
    case map([SlotRange])
    case noCluster
  }

  private func ask(_ nodes: [Node], deadline: UInt64) -> (node: Node, reply: Map)? {
    var answer: (node: Node, reply: Map)?
    let requests = nodes.map { Request(.node($0), ["CLUSTER", "SLOTS"]) }
    let exchange = unsafe Exchange(requests, self, deadline: deadline) { index, outcome in
      switch outcome {
      case .reply(let reply):
        guard let ranges = SlotRange.ranges(reply), !ranges.isEmpty else { return .goOn }
        answer = (nodes[index], .map(ranges))
      case .refused(let error):
        // No cluster, or one whose map is not ours to see: redirections tell then.
        guard error.code == "ERR" || error.code == "NOPERM" else { return .goOn }
        answer = (nodes[index], .noCluster)
      default: return .goOn
      }
      return .stop
    }
    exchange.run()
    return answer
  }

  private func enter(_ ranges: [SlotRange], from node: Node, _ state: inout State) {
    let before = state.masters
    let slotsBefore = state.slots
    var masters: [Node] = []
    var slots = [UInt16](repeating: .max, count: KeySlot.count)
    var named: Set<RedisConfiguration.Endpoint> = Set(configuration.endpoints)
    for range in ranges {
      let host = range.host.isEmpty ? node.endpoint.host : range.host
      let endpoint = RedisConfiguration.Endpoint(host: host, port: range.port)
      named.insert(endpoint)
      for replica in range.replicas where !replica.host.isEmpty { named.insert(replica) }
      guard let master = self.node(endpoint, &state) else { continue }
      var index = masters.firstIndex { $0 === master }
      if index == nil {
        index = masters.count
        masters.append(master)
      }
      for slot in range.slots { slots[Int(slot)] = UInt16(index ?? 0) }
    }
    // Replicas are nodes too: one of them can tell the map once its master is gone.
    for endpoint in named { _ = self.node(endpoint, &state) }
    for (endpoint, gone) in state.nodes where !named.contains(endpoint) {
      gone.close()
      state.nodes[endpoint] = nil
    }
    state.isCluster = true
    state.isStale = false
    state.masters = masters
    state.slots = slots
    let isSame =
      before.count == masters.count && zip(before, masters).allSatisfy { $0 === $1 }
      && slotsBefore == slots
    if !isSame { state.version += 1 }
  }

  func close() {
    let nodes = state.withLock { state in
      state.isClosed = true
      return Array(state.nodes.values)
    }
    for node in nodes { node.close() }
  }
}
