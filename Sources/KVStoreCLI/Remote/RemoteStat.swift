import ArgumentParser
import KVCore
import KVRedis
import KVRemote

/// `kvstore remote stat`: what lies in the remote, and what is wrong with the server for it.
struct RemoteStat: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stat",
    abstract: "Show the objects of each identity, and the server's memory and policy.",
    discussion: """
      Goes over all names of the server (SCAN), and asks the length and end of each object: on a server with millions of \
      other keys that takes a while, and disturbs it little.

      EXAMPLES
        kvstore remote stat redis://cache:6379
        kvstore remote stat rediss://cache --json
      """
  )

  @OptionGroup var options: RemoteOptions

  func run() throws {
    try options.withRemote { remote, configuration in
      let information = try remote.information(deadline: options.deadline)
      var inventory = RemoteInventory()
      let line = ProgressLine()
      defer { line.clear() }
      try eachPage(of: remote, options) { names in
        let objects = try remote.objects(names, deadline: options.deadline)
        inventory.add(zip(names, objects))
        line.show("objects: \(inventory.objectCount)")
      }
      line.clear()
      try inventory.readRecords(remote, options)
      let document = RemoteStatDocument(
        information,
        inventory,
        isReadable: configuration.tls == nil && !configuration.isOnThisMachine
      )
      try options.show(document, document.lines)
    }
  }
}

/// Goes over all names of the remote tier, or those of one prefix, a page at a time.
func eachPage(
  of remote: RedisObjects,
  prefix: RemoteName = RemoteIdentity.allPrefix,
  _ options: RemoteOptions,
  _ body: ([RemoteName]) throws -> Void
) throws {
  var cursor: ListCursor?
  repeat {
    let page = try remote.list(prefix: prefix, after: cursor, deadline: options.deadline)
    if !page.names.isEmpty { try body(page.names) }
    cursor = page.next
  } while cursor != nil
}

/// The objects of each identity.
///
/// Names may come twice; so they are kept.
struct RemoteInventory {
  struct Identity {
    var objectCount = 0
    var byteCount = 0
    var endlessCount = 0
    var hasRecord = false
    /// As its record says; nil without one, or where it is not whole.
    var model: String?
  }

  private(set) var identities: [String: Identity] = [:]
  /// Under our prefix, and not named as ours.
  private(set) var foreignCount = 0
  private var seen: Set<RemoteName> = []

  var objectCount: Int { seen.count }

  mutating func add(_ objects: some Sequence<(RemoteName, RedisObjects.Object?)>) {
    for (name, object) in objects {
      guard let object, seen.insert(name).inserted else { continue }
      guard let parts = RemoteIdentity.parts(of: name) else {
        foreignCount += 1
        continue
      }
      var identity = identities[parts.identity] ?? Identity()
      identity.objectCount += 1
      identity.byteCount += object.byteCount
      if object.isEndless { identity.endlessCount += 1 }
      if parts.isRecord { identity.hasRecord = true }
      identities[parts.identity] = identity
    }
  }

  /// Reads which model each identity is of.
  mutating func readRecords(_ remote: RedisObjects, _ options: RemoteOptions) throws {
    let names = identities.filter(\.value.hasRecord).keys.sorted()
    for name in names {
      let record = try RemoteIdentity.record(of: name, remote, options)
      identities[name]?.model = record.flatMap { NamespaceIdentity(record: $0) }?.modelName
    }
  }
}

/// The JSON of `remote stat`.
struct RemoteStatDocument: CommandDocument {
  static let schema = "remote-stat"

  struct Identity: Encodable {
    /// What its names begin with, behind `kv1:`.
    var identity: String
    /// Nil where the record beside the objects is absent or not whole.
    var model: String?
    var objectCount: Int
    var byteCount: Int
    /// Objects that never end by themselves.
    var endlessCount: Int
  }

  var version: String
  var nodes: [String]
  var usedByteCount: UInt64?
  /// Nil: no bound.
  var byteCountMax: UInt64?
  var evictionPolicy: String?
  var role: String?
  var objectCount: Int
  var objectByteCount: Int
  var foreignCount: Int
  var identities: [Identity]
  var warnings: [String]

  init(_ information: RemoteInformation, _ inventory: RemoteInventory, isReadable: Bool) {
    version = information.version
    nodes = information.nodes
    usedByteCount = information.usedByteCount
    byteCountMax = information.byteCountMax
    evictionPolicy = information.evictionPolicy
    role = information.role
    objectCount = inventory.objectCount
    foreignCount = inventory.foreignCount
    identities = inventory.identities.sorted { $0.key < $1.key }.map { name, identity in
      Identity(
        identity: name,
        model: identity.model,
        objectCount: identity.objectCount,
        byteCount: identity.byteCount,
        endlessCount: identity.endlessCount
      )
    }
    objectByteCount = identities.reduce(0) { $0 + $1.byteCount }
    let endlessCount = identities.reduce(0) { $0 + $1.endlessCount }
    warnings = []
    let policy = evictionPolicy ?? ""
    if policy == "noeviction" {
      warnings.append(
        "when it is full it refuses writes, and stores stop sending: set maxmemory-policy to allkeys-lru"
      )
    } else if policy.hasPrefix("volatile-"), endlessCount > 0 {
      warnings.append(
        "\(counted(endlessCount, "object")) without an end never leaves with \(policy): set a time to live"
      )
    }
    if endlessCount > 0, policy == "noeviction" {
      warnings.append("\(counted(endlessCount, "object")) without an end: set a time to live")
    }
    if byteCountMax == nil, usedByteCount != nil {
      warnings.append("it may use all memory of its machine: set maxmemory")
    }
    if role == "replica" {
      warnings.append("it is a replica, and takes no writes: name its master")
    }
    if isReadable {
      warnings.append("everybody on the way can read and change everything: use rediss://")
    }
    if foreignCount > 0 {
      warnings.append("\(counted(foreignCount, "object")) begins with kv1: and is not of a store")
    }
  }

  /// The document for people.
  var lines: [String] {
    var fields = [("server", printable(version)), ("nodes", nodesText(nodes))]
    if let usedByteCount {
      fields.append(
        (
          "memory",
          byteText(usedByteCount) + (byteCountMax.map { " of \(byteText($0))" } ?? ", no bound")
        )
      )
    }
    if let evictionPolicy { fields.append(("eviction", printable(evictionPolicy))) }
    fields.append(("objects", "\(objectCount), \(byteText(objectByteCount))"))
    var lines = fieldLines(fields)
    if !identities.isEmpty {
      var table = TextTable([
        ("identity", .left), ("model", .left), ("objects", .right), ("bytes", .right),
      ])
      for identity in identities {
        table.append([
          identity.identity, printable(identity.model ?? "(no record)"), "\(identity.objectCount)",
          byteText(identity.byteCount),
        ])
      }
      lines += [""] + table.lines()
    }
    if !warnings.isEmpty { lines += [""] + warnings.flatMap { wrapped("warning: \($0)") } }
    return lines
  }
}
