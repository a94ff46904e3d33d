import KVAdmin
import KVCore
import KVStore

extension AgentRuns {
  /// A path of blocks that belongs to a run.
  struct Path: Hashable {
    var digests: [UInt8]
    /// In the namespace of large pieces.
    var isLarge = false
  }

  /// All that a run consists of, its own record first; the same as `carry.py` takes.
  func paths(of run: AgentRun) throws(StoreError) -> [Path] {
    var walk = PathWalk(runs: self, namespace: run.namespace)
    try walk.add([recordKey(run)])
    try walk.add(list: key(of: run, "list", AgentKey.quoted("branches")))
    for way in try ways(of: run) {
      try walk.add(way: way)
      if let first = way.first {
        let growth = AgentKey.quoted("growth " + AgentKey.hexadecimal(first.label))
        try walk.add(list: key(of: run, "list", growth))
      }
    }
    try walk.add(list: key(of: run, "log", AgentKey.quoted("openings")))
    for opening in try openings(of: run) {
      let log = key(of: run, "log", AgentKey.quoted(opening.meta.nonce))
      for record in try walk.add(list: log) {
        guard let meta = record.meta(AgentRun.Event.Meta.self) else { continue }
        if let value = meta.value { try walk.add([AgentKey.bytes(hexadecimal: value)]) }
        if let lane = meta.lane {
          try walk.add(way: [(label: AgentKey.bytes(hexadecimal: lane), end: nil)])
        }
      }
    }
    return walk.paths
  }
}

/// Collects paths, and the pieces of what is at them.
private struct PathWalk {
  let runs: AgentRuns
  let namespace: NamespaceID
  private(set) var paths: [AgentRuns.Path] = []
  private var known: Set<AgentRuns.Path> = []

  init(runs: AgentRuns, namespace: NamespaceID) {
    self.runs = runs
    self.namespace = namespace
  }

  /// What is stored at the digests, from the first one on.
  @discardableResult
  mutating func add(_ digests: [[UInt8]]) throws(StoreError) -> [AgentRecord] {
    let payloads = try runs.payloads(digests, namespace)
    append(AgentRuns.Path(digests: digests.prefix(payloads.count).flatMap { $0 }))
    let records = payloads.compactMap(AgentRecord.init)
    for record in records {
      if let pieces = record.pieces {
        append(AgentRuns.Path(digests: pieces.digests, isLarge: pieces.areLarge))
      }
    }
    return records
  }

  @discardableResult
  mutating func add(list key: [UInt8]) throws(StoreError) -> [AgentRecord] {
    var records: [AgentRecord] = []
    while true {
      let page = try add(AgentKey.page(records.count / AgentKey.listPageCount, ofList: key))
      records += page
      guard page.count == AgentKey.listPageCount else { return records }
    }
  }

  /// Steps, and the tokens of those that are checkpoints.
  mutating func add(way: [AgentRun.Segment]) throws(StoreError) {
    let digests = try runs.steps(way, namespace).digests
    for (index, record) in try add(digests).enumerated()
    where record.meta(AgentRun.Step.Meta.self)?.kind == "checkpoint" {
      let at = AgentKey.quoted(AgentKey.hexadecimal(digests[index]))
      try add([AgentKey.digest(["at": at, "kvstore.agent": AgentKey.quoted("tokens")])])
    }
  }

  private mutating func append(_ path: AgentRuns.Path) {
    if !path.digests.isEmpty, known.insert(path).inserted { paths.append(path) }
  }
}
