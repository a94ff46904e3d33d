import KVAdmin
import KVCore
import KVStore

/// The parts of the JSON of `inspect summary`, and how they look on the screen.
extension SummaryDocument {
  struct Owner: Encodable {
    var number: UInt32
    var processID: Int32
    var name: String
    /// Nil when the process does not say.
    var memory: Memory?
    /// Nil without a remote tier.
    var remote: Remote?

    init(_ owner: StoreInspector.Owner) {
      number = owner.number
      processID = owner.processID
      name = owner.name
      memory = owner.memory.map(Memory.init)
      remote = owner.remote.map(Remote.init)
    }

    var text: String {
      let name = name.isEmpty ? "process" : printable(name)
      return "\(name) (\(processID))"
    }
  }

  /// What a process holds in memory, a second ago at most.
  struct Memory: Encodable {
    var hostByteCount: UInt64
    var hostByteCountUsed: UInt64
    var hostByteCountLent: UInt64
    var hostBlockCount: UInt64
    var leaseCount: UInt64
    var deviceSlotCount: UInt64
    var deviceSlotCountUsed: UInt64
    var deviceSlotCountCached: UInt64
    /// What it lets the store take.
    var diskByteCountMax: UInt64
    var archiveByteCountMax: UInt64

    init(_ memory: ProcessMemory) {
      hostByteCount = memory.hostBytesCapacity
      hostByteCountUsed = memory.hostBytesUsed
      hostByteCountLent = memory.hostBytesLent
      hostBlockCount = memory.hostBlockCount
      leaseCount = memory.leaseCount
      deviceSlotCount = memory.deviceSlotsCapacity
      deviceSlotCountUsed = memory.deviceSlotsUsed
      deviceSlotCountCached = memory.deviceSlotsCached
      diskByteCountMax = memory.diskBytesCapacity
      archiveByteCountMax = memory.archiveBytesCapacity
    }

    static let columns: [(heading: String, alignment: TextTable.Alignment)] = [
      ("process", .left), ("host used", .right), ("free", .right), ("blocks in RAM", .right),
      ("lent", .right), ("leases", .right), ("device slots used", .right), ("free", .right),
    ]

    func row(_ name: String) -> [String] {
      let free = hostByteCount - min(hostByteCount, hostByteCountUsed)
      let deviceFree = deviceSlotCount - min(deviceSlotCount, deviceSlotCountUsed)
      let device =
        deviceSlotCount == 0
        ? ["–", "–"]
        : [
          "\(deviceSlotCountUsed) of \(deviceSlotCount)",
          "\(deviceFree), \(deviceSlotCountCached) cached",
        ]
      return [
        name,
        "\(byteText(hostByteCountUsed)) of \(byteText(hostByteCount)) (\(percentText(hostByteCountUsed, hostByteCount)))",
        byteText(free), "\(hostBlockCount)", byteText(hostByteCountLent), "\(leaseCount)",
      ] + device
    }
  }

  struct Namespace: Encodable {
    var id: UInt32
    var modelName: String
    var kvDtype: String
    /// Tells the salts of one store apart; nil without one.
    var saltMark: String?
    var blockCount: Int
    var payloadByteCount: Int
    var storedByteCount: Int
    /// Nil = none.
    var quotaBytes: UInt64?
    var quotaBytesUsed: UInt64
    /// Of blocks that are written without a word about it; nil = until they are evicted.
    var ttlSeconds: Double?
    /// Uses extend it.
    var ttlIsIdle: Bool

    init(_ summary: StoreInspector.NamespaceSummary) {
      id = summary.id.rawValue
      modelName = summary.identity?.modelName ?? ""
      kvDtype = summary.identity?.kvDtype ?? ""
      saltMark = summary.saltMark
      blockCount = summary.blockCount
      payloadByteCount = summary.payloadByteCount
      storedByteCount = summary.storedByteCount
      quotaBytes = summary.quotaBytes == 0 ? nil : summary.quotaBytes
      quotaBytesUsed = summary.quotaBytesUsed
      switch summary.timeToLive {
      case .unlimited: (ttlSeconds, ttlIsIdle) = (nil, false)
      case .idle(let nanoseconds): (ttlSeconds, ttlIsIdle) = (Double(nanoseconds) / 1e9, true)
      case .absolute(let nanoseconds): (ttlSeconds, ttlIsIdle) = (Double(nanoseconds) / 1e9, false)
      }
    }

    static let columns: [(heading: String, alignment: TextTable.Alignment)] = [
      ("namespace", .right), ("model", .left), ("dtype", .left), ("salt", .left),
      ("blocks", .right), ("payload", .right), ("quota", .right), ("time to live", .left),
    ]

    var row: [String] {
      let quota =
        quotaBytes.map { "\(percentText(quotaBytesUsed, $0)) of \(byteText($0))" } ?? "–"
      let life =
        ttlSeconds.map {
          "\(decimalText($0, digits: 3)) s after \(ttlIsIdle ? "a use" : "writing")"
        } ?? "–"
      return [
        "\(id)", modelName.isEmpty ? "–" : String(printable(modelName).prefix(40)),
        kvDtype.isEmpty ? "–" : printable(kvDtype), saltMark ?? "–", "\(blockCount)",
        byteText(payloadByteCount), quota, life,
      ]
    }
  }

  /// Since the store was made, by all processes.
  struct Lifetime: Encodable {
    var blocksOffloaded: UInt64
    var payloadBytesOffloaded: UInt64
    var diskBytesWritten: UInt64
    var archiveBytesWritten: UInt64
    var payloadBytesDemoted: UInt64
    var commits: UInt64
    /// What commits wrote to the catalog's file.
    var catalogBytesWritten: UInt64
    var matchCalls: UInt64
    var tokensAsked: UInt64
    var tokensFound: UInt64
    var blocksFoundHost: UInt64
    var blocksFoundDisk: UInt64
    var blocksFoundArchive: UInt64
    var blocksQuarantined: UInt64
    var blocksEvicted: UInt64
    var blocksExpired: UInt64

    init(_ lifetime: StoreInspector.Lifetime) {
      blocksOffloaded = lifetime.blocksOffloaded
      payloadBytesOffloaded = lifetime.payloadBytesOffloaded
      diskBytesWritten = lifetime.diskBytesWritten
      archiveBytesWritten = lifetime.archiveBytesWritten
      payloadBytesDemoted = lifetime.payloadBytesDemoted
      commits = lifetime.commits
      catalogBytesWritten = lifetime.catalogBytesWritten
      matchCalls = lifetime.matchCalls
      tokensAsked = lifetime.tokensAsked
      tokensFound = lifetime.tokensFound
      blocksFoundHost = lifetime.blocksFoundHost
      blocksFoundDisk = lifetime.blocksFoundDisk
      blocksFoundArchive = lifetime.blocksFoundArchive
      blocksQuarantined = lifetime.blocksQuarantined
      blocksEvicted = lifetime.blocksEvicted
      blocksExpired = lifetime.blocksExpired
    }

    var lookUpText: String {
      matchCalls == 0
        ? "never"
        : "\(matchCalls) times, \(tokensFound) of \(tokensAsked) tokens found (\(percentText(tokensFound, tokensAsked)))"
    }

    var tierText: String {
      let all = blocksFoundHost + blocksFoundDisk + blocksFoundArchive
      guard all > 0 else { return "nothing" }
      return [
        ("host", blocksFoundHost), ("disk", blocksFoundDisk), ("archive", blocksFoundArchive),
      ]
      .filter { $0.1 > 0 || $0.0 != "archive" }
      .map { "\(percentText($0.1, all)) in \($0.0)" }.joined(separator: ", ")
    }

    var writtenText: String {
      let archive =
        archiveBytesWritten == 0
        ? ""
        : ", archive \(byteText(archiveBytesWritten)) for \(byteText(payloadBytesDemoted))"
      return
        "disk \(byteText(diskBytesWritten)) for \(byteText(payloadBytesOffloaded)) of payload\(archive); catalog \(byteText(catalogBytesWritten)) in \(commits) commits"
    }

    var leftText: String {
      "\(blocksEvicted) evicted, \(blocksExpired) expired, \(blocksQuarantined) quarantined"
    }
  }

  struct Prefix: Encodable {
    var namespace: UInt32
    var run: UInt64
    var firstBlockKey: String
    var hitCount: UInt64
    /// Tokens that did not have to be computed.
    var tokenCountSaved: UInt64
    /// At most so many of them are another prefix's.
    var tokenCountError: UInt64
    /// Down to the run's last block.
    var prefixTokenCount: Int
    var firstWords: [UInt32]

    init(_ prefix: StoreInspector.UsedPrefix, tokensPerBlock: Int) {
      namespace = prefix.namespace.rawValue
      run = prefix.run.rawValue
      firstBlockKey = prefix.firstBlockKey.hexadecimal
      hitCount = prefix.hitCount
      tokenCountSaved = prefix.tokenCount
      tokenCountError = prefix.tokenCountError
      prefixTokenCount = prefix.blockCount * tokensPerBlock
      firstWords = Array(prefix.firstWords.prefix(8))
    }

    static let columns: [(heading: String, alignment: TextTable.Alignment)] = [
      ("tokens saved", .right), ("hits", .right), ("namespace", .right), ("run", .right),
      ("prefix tokens", .right), ("begins with", .left),
    ]

    var row: [String] {
      let least = tokenCountSaved - min(tokenCountSaved, tokenCountError)
      return [
        tokenCountError == 0 ? "\(tokenCountSaved)" : "≥ \(least)", "\(hitCount)", "\(namespace)",
        "\(run)", "\(prefixTokenCount)",
        firstWords.map { "\($0)" }.joined(separator: " ") + " …",
      ]
    }
  }

  struct Survey: Encodable {
    struct Bucket: Encodable {
      /// Up to this; nil = beyond the one before.
      var upTo: Int?
      var blockCount: Int
    }

    struct TierUse: Encodable {
      var tier: String
      var blockCount: Int
      var payloadByteCount: Int
      var storedByteCount: Int
    }

    /// Blocks that were looked at.
    var blockCount: Int
    /// false: there are more.
    var isWhole: Bool
    var ageSeconds: [Bucket]
    var prefixTokens: [Bucket]
    var tiers: [TierUse]

    init(_ survey: StoreInspector.Survey) {
      blockCount = survey.blockCount
      isWhole = survey.isWhole
      ageSeconds = Self.buckets(survey.blockCountsByAge, StoreInspector.Survey.ageSecondsBounds)
      prefixTokens = Self.buckets(
        survey.blockCountsByTokens,
        StoreInspector.Survey.tokenCountBounds
      )
      tiers = survey.tiers.map {
        TierUse(
          tier: "\($0.tier)",
          blockCount: $0.blockCount,
          payloadByteCount: $0.payloadByteCount,
          storedByteCount: $0.storedByteCount
        )
      }
    }

    private static func buckets(_ counts: [Int], _ bounds: [Int]) -> [Bucket] {
      counts.indices.map {
        Bucket(upTo: bounds.indices.contains($0) ? bounds[$0] : nil, blockCount: counts[$0])
      }
    }

    var ageText: String { text(ageSeconds, ["1 min", "1 h", "1 d", "7 d", "30 d"]) }
    var depthText: String { text(prefixTokens, ["1 Ki", "4 Ki", "16 Ki", "64 Ki", "256 Ki"]) }

    private func text(_ buckets: [Bucket], _ names: [String]) -> String {
      guard blockCount > 0 else { return "–" }
      let parts = buckets.indices.filter { buckets[$0].blockCount > 0 }.map { index in
        let share = percentText(UInt64(buckets[index].blockCount), UInt64(blockCount))
        let name = names.indices.contains(index) ? "≤ \(names[index])" : "more"
        return "\(name): \(share)"
      }
      let sample = isWhole ? "" : " (of the first \(blockCount) blocks)"
      return parts.joined(separator: " · ") + sample
    }

    /// How many bytes of payload a stored byte holds.
    func ratioText(_ tier: String) -> String {
      guard let use = tiers.first(where: { $0.tier == tier }), use.storedByteCount > 0 else {
        return "–"
      }
      return decimalText(Double(use.payloadByteCount) / Double(use.storedByteCount), digits: 3)
    }
  }
}
