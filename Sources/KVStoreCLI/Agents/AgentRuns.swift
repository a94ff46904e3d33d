import KVAdmin
import KVCore
import KVStore

/// A run of an agent, as its user's register has it.
struct AgentRun {
  struct Origin: Decodable {
    var run: String
    var at: Int
  }

  struct Entry: Decodable {
    var run: String
    var session: String?
    var created: Double
    var origin: Origin?
  }

  /// A step that is confirmed.
  struct Step {
    struct Meta: Decodable {
      var step: String
      var kind: String
      var name: String
      var seconds: Double?
    }

    var number: Int
    var storedNanoseconds: UInt64
    var meta: Meta
  }

  /// A line of its log.
  struct Event {
    struct Meta: Decodable {
      var layer: String
      var outcome: String
      var name: String
      var call: String?
      var key: String?
      var version: String?
      var age: Double?
      var source: String?
      var reason: String?
      /// Digest of its answer, where that lies by itself.
      var value: String?
      /// Label of the steps within it.
      var lane: String?
      var seconds: Double?
      var tokens: [Int]?
      var money: Double?
    }

    var storedNanoseconds: UInt64
    var meta: Meta
  }

  /// One time that it was opened.
  struct Opening {
    struct Meta: Decodable {
      var nonce: String
      var process: Int?
    }

    var openedNanoseconds: UInt64
    var meta: Meta
  }

  /// The label of a branch, and the step at which it is left.
  typealias Segment = (label: [UInt8], end: Int?)

  var namespace: NamespaceID
  var entry: Entry
}

/// Reads the runs that `kvstore.agent` keeps in a store, of all users.
struct AgentRuns {
  let inspector: StoreInspector

  /// All of them, oldest first within a namespace.
  func runs(in chosen: [StoreInspector.NamespaceSummary]) throws(StoreError) -> [AgentRun] {
    var found: [AgentRun] = []
    for namespace in chosen
    where namespace.identity?.modelName == "kvstore.agent"
      && namespace.identity?.layout == "records"
    {
      var known: Set<[UInt8]> = []
      for record in try list(register(namespace.id), namespace.id) {
        guard let entry = record.content(AgentRun.Entry.self) else { continue }
        let run = AgentRun(namespace: namespace.id, entry: entry)
        // One whose life has ended is still in the register, and another of its name may have been made since.
        struct Life: Decodable { var created: Double }
        let key = recordKey(run)
        let record = try payloads([key], namespace.id).first.flatMap(AgentRecord.init)
        guard record?.content(Life.self)?.created == entry.created else { continue }
        // One that was removed and imported again is entered twice.
        if known.insert(key).inserted { found.append(run) }
      }
    }
    return found
  }

  /// The list that a user's runs are in: that of the current generation (rolling.py).
  func register(_ namespace: NamespaceID) throws(StoreError) -> [UInt8] {
    let key = AgentKey.digest([
      "kvstore.agent": AgentKey.quoted("register"), "of": AgentKey.quoted("runs"),
    ])
    func mark(_ number: Int) -> [UInt8] {
      SHA256.hash(Array("begins".utf8) + key + AgentKey.bigEndian(number))
    }
    guard try !payloads([mark(0)], namespace).isEmpty else { return key }
    var number = 0
    for place in [UInt8(0), 1] {
      let path = SHA256.hash(Array("place".utf8) + key + [place])
      let record = try payloads([path], namespace).first.flatMap(AgentRecord.init)
      guard let noted = record?.content, noted.count == 8 else { continue }
      number = max(number, Int(truncatingIfNeeded: noted.reduce(0) { $0 << 8 | UInt64($1) }))
    }
    while try !payloads([mark(number + 1)], namespace).isEmpty { number += 1 }
    guard number > 0 else { return key }
    return SHA256.hash(Array("generation".utf8) + key + AgentKey.bigEndian(number))
  }

  /// Its steps, in order.
  func steps(of run: AgentRun) throws(StoreError) -> [AgentRun.Step] {
    let way = try ways(of: run).last ?? []
    return try steps(way, run.namespace).payloads.enumerated().compactMap { index, payload in
      guard let record = AgentRecord(payload), let meta = record.meta(AgentRun.Step.Meta.self)
      else { return nil }
      return AgentRun.Step(
        number: index + 1,
        storedNanoseconds: record.storedNanoseconds,
        meta: meta
      )
    }
  }

  /// The steps that a way leads past, as they are stored.
  func steps(
    _ way: [AgentRun.Segment],
    _ namespace: NamespaceID
  ) throws(StoreError) -> (digests: [[UInt8]], payloads: [[UInt8]]) {
    guard !way.isEmpty else { return ([], []) }
    var count = 256
    while true {
      let digests = AgentKey.steps(way, count: count)
      let found = try payloads(digests, namespace)
      guard found.count == count, count < 1 << 20 else {
        return (Array(digests.prefix(found.count)), found)
      }
      count *= 4
    }
  }

  /// When it was opened, and by whom.
  func openings(of run: AgentRun) throws(StoreError) -> [AgentRun.Opening] {
    try list(key(of: run, "log", AgentKey.quoted("openings")), run.namespace).compactMap { record in
      record.meta(AgentRun.Opening.Meta.self).map {
        AgentRun.Opening(openedNanoseconds: record.storedNanoseconds, meta: $0)
      }
    }
  }

  /// What its calls were answered since one of them.
  func events(
    of run: AgentRun,
    since opening: AgentRun.Opening
  ) throws(StoreError) -> [AgentRun.Event] {
    let log = key(of: run, "log", AgentKey.quoted(opening.meta.nonce))
    return try list(log, run.namespace).compactMap { record in
      record.meta(AgentRun.Event.Meta.self).map {
        AgentRun.Event(storedNanoseconds: record.storedNanoseconds, meta: $0)
      }
    }
  }

  // MARK: - Records

  /// Where the run's ways lead: that which it was made with, and one for each time it was rewound.
  func ways(of run: AgentRun) throws(StoreError) -> [[AgentRun.Segment]] {
    struct Way: Decodable {
      struct Segment: Decodable {
        var label: String
        var end: Int?

        init(from decoder: any Decoder) throws {
          var values = try decoder.unkeyedContainer()
          label = try values.decode(String.self)
          end = try values.decodeIfPresent(Int.self)
        }
      }

      var segments: [Segment]
    }
    let made = try payloads([recordKey(run)], run.namespace).compactMap(AgentRecord.init)
    let branches = try list(key(of: run, "list", AgentKey.quoted("branches")), run.namespace)
    return (made + branches).compactMap { record in
      record.content(Way.self)?.segments.map {
        (label: AgentKey.bytes(hexadecimal: $0.label), end: $0.end)
      }
    }
  }

  /// The member's name stands between "kvstore.agent" and "run".
  func key(of run: AgentRun, _ member: String, _ value: String) -> [UInt8] {
    let name = AgentKey.quoted(run.entry.run)
    let session = AgentKey.quoted(run.entry.session)
    let text =
      "{\"kvstore.agent\":\"run\",\"\(member)\":\(value),\"run\":\(name),\"session\":\(session)}"
    return SHA256.hash(Array(text.utf8))
  }

  func recordKey(_ run: AgentRun) -> [UInt8] { key(of: run, "record", "1") }

  func list(
    _ key: [UInt8],
    _ namespace: NamespaceID
  ) throws(StoreError) -> [AgentRecord] {
    var records: [AgentRecord] = []
    var page = 0
    while true {
      let found = try payloads(AgentKey.page(page, ofList: key), namespace)
      records += found.compactMap(AgentRecord.init)
      guard found.count == AgentKey.listPageCount else { return records }
      page += 1
    }
  }

  func payloads(
    _ digests: [[UInt8]],
    _ namespace: NamespaceID
  ) throws(StoreError) -> [[UInt8]] {
    try inspector.inlinePayloads(of: digests.flatMap(AgentKey.words), in: namespace)
  }
}
