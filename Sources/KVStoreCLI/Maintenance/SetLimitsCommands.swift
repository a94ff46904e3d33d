import ArgumentParser
import Glibc
import KVAdmin
import KVCore
import KVStore

/// A size, or `none`.
struct SizeOrNone: ExpressibleByArgument {
  /// 0: none.
  let byteCount: Int

  init?(argument: String) {
    if argument.lowercased() == "none" {
      byteCount = 0
    } else {
      guard let size = ByteSize(argument: argument) else { return nil }
      byteCount = size.byteCount
    }
  }
}

/// A length of time, or `none`.
struct TimeSpanOrNone: ExpressibleByArgument {
  /// 0: none.
  let seconds: UInt64

  init?(argument: String) {
    if argument.lowercased() == "none" {
      seconds = 0
    } else {
      guard let span = TimeSpan(argument: argument), span.seconds > 0,
        span.seconds <= UInt64.max / 1_000_000_000
      else { return nil }
      seconds = span.seconds
    }
  }
}

/// The JSON of `set quota` and `set ttl`: what holds now.
struct SetLimitsDocument: CommandDocument {
  static let schema = "set-limits"

  var namespace: UInt32
  /// Nil: none.
  var quotaBytes: UInt64?
  var quotaBytesUsed: UInt64
  var ttlSeconds: Double?
  var ttlIsIdle: Bool
  /// Blocks that left because of a new quota.
  var evictedBlockCount: Int

  /// Changes what is not nil, and says what holds then.
  init(_ store: Store, namespace number: UInt32, _ limits: NamespaceLimits) throws {
    func found() throws -> StoreInspector.NamespaceSummary {
      let all = try store.inspector.namespaces()
      guard let summary = all.first(where: { $0.id.rawValue == number }) else {
        throw CommandFailure("the store has no namespace \(number)")
      }
      return summary
    }
    let before = try found()
    try store.setLimits(limits, of: before.id)
    let after = try found()
    let shown = SummaryDocument.Namespace(after)
    namespace = number
    quotaBytes = shown.quotaBytes
    quotaBytesUsed = shown.quotaBytesUsed
    ttlSeconds = shown.ttlSeconds
    ttlIsIdle = shown.ttlIsIdle
    evictedBlockCount = max(0, before.blockCount - after.blockCount)
  }

  /// The document for people.
  var text: String {
    let quota =
      quotaBytes.map { quota in
        let kept = quotaBytesUsed > quota ? ", since pins or leases keep them" : ""
        return "a quota of \(byteText(quota)), \(byteText(quotaBytesUsed)) in use\(kept)"
      } ?? "no quota"
    let life =
      ttlSeconds.map {
        "blocks live for \(decimalText($0, digits: 3)) s after \(ttlIsIdle ? "a use" : "writing")"
      } ?? "no TTL"
    let evicted =
      evictedBlockCount > 0 ? "; \(counted(evictedBlockCount, "block")) evicted" : ""
    return "namespace \(namespace): \(quota); \(life)\(evicted)"
  }
}

/// `kvstore set quota`: bounds what a namespace holds.
struct SetQuotaCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quota",
    abstract: "Bound what a namespace may hold; blocks over it leave at once.",
    discussion: """
      Works at rest and beside a live server. An engine that opens the namespace with a quota of its own sets that one \
      again.

      EXAMPLES
        kvstore set quota STORE 20G --namespace 3
        kvstore set quota STORE none --namespace 3
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(help: "Bytes on disk, for example 20G; none for no bound of its own.")
  var size: SizeOrNone

  @Option(help: "Number of the namespace, as `inspect namespaces` shows it.")
  var namespace: UInt32

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    try withStore(at: store, readOnly: false) { opened in
      let document = try SetLimitsDocument(
        opened,
        namespace: namespace,
        NamespaceLimits(quotaBytes: UInt64(size.byteCount))
      )
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// `kvstore set ttl`: how long a namespace's blocks live.
struct SetTTLCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ttl",
    abstract: "Set how long blocks live that are stored in a namespace from now on.",
    discussion: """
      Blocks that are stored already keep their life. Works at rest and beside a live server, which applies it from when \
      it opens the namespace next; one that opens it with a TTL of its own sets that one again.

      EXAMPLES
        kvstore set ttl STORE 7d --namespace 3
        kvstore set ttl STORE 24h --after-writing --namespace 3
        kvstore set ttl STORE none --namespace 3
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(
    help: "After a block's last use: 90s, 15m, 3h, 2d; none for as long as there is room."
  )
  var time: TimeSpanOrNone

  @Flag(help: "Count from when a block was written, however often it is used.")
  var afterWriting = false

  @Option(help: "Number of the namespace, as `inspect namespaces` shows it.")
  var namespace: UInt32

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    let nanoseconds = time.seconds * 1_000_000_000
    let life: TimeToLive =
      nanoseconds == 0
      ? .unlimited
      : afterWriting ? .absolute(nanoseconds: nanoseconds) : .idle(nanoseconds: nanoseconds)
    try withStore(at: store, readOnly: false) { opened in
      let document = try SetLimitsDocument(
        opened,
        namespace: namespace,
        NamespaceLimits(timeToLive: life)
      )
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// `kvstore set capacity`: what a stopped store may take on disk.
struct SetCapacityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "capacity",
    abstract: "Set what a stopped store may take on disk; a smaller one takes effect at once.",
    discussion: """
      The capacity is what the store was made with; commands keep to it, and blocks leave in the order of eviction until \
      the slot files fit. The catalog keeps its size. An engine opens a store with a capacity of its own \
      (capacity_bytes): give it the same one. Needs the store stopped.

      EXAMPLES
        kvstore set capacity STORE 500G
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(help: "Upper bound of the bytes on disk, metadata included: 200G.")
  var size: ByteSize

  @Flag(help: "Print one JSON document.")
  var json = false

  /// Shrinking is looked at each second; what nothing moves within this stays: pins and leases keep it.
  private static let patienceSeconds = 5

  func run() throws {
    var document = SetCapacityDocument(
      capacityByteCountBefore: 0,
      capacityByteCount: size.byteCount,
      usedByteCount: 0
    )
    try reportingErrors(at: store) {
      do {
        document.capacityByteCountBefore = try Store.setCapacity(
          StoreConfiguration(path: store),
          to: size.byteCount
        )
      } catch StoreError.invalidArgument(.capacityTooSmall) {
        throw CommandFailure(
          "\(store): \(size) are too few: the catalog, which keeps its size, takes at most 15/16 of a capacity, and the "
            + "smallest store has 64 MiB"
        )
      }
    }
    try withStore(at: store, readOnly: false, capacity: .exactly(size.byteCount)) { opened in
      let line = ProgressLine()
      defer { line.clear() }
      var unchangedCount = 0
      document.usedByteCount = try opened.statistics().diskBytesUsed
      while document.usedByteCount > UInt64(size.byteCount),
        unchangedCount < Self.patienceSeconds * 10
      {
        line.show("\(byteText(document.usedByteCount)) of \(size)")
        usleep(100_000)
        let used = try opened.statistics().diskBytesUsed
        unchangedCount = used == document.usedByteCount ? unchangedCount + 1 : 0
        document.usedByteCount = used
      }
    }
    print(json ? try jsonText(document) : document.text)
  }
}

/// The JSON of `set capacity`.
struct SetCapacityDocument: CommandDocument {
  static let schema = "set-capacity"

  var capacityByteCountBefore: Int
  var capacityByteCount: Int
  /// More than the capacity where pins keep blocks.
  var usedByteCount: UInt64

  /// The document for people.
  var text: String {
    let over =
      usedByteCount > UInt64(capacityByteCount) ? ", which pins keep from becoming fewer" : ""
    return
      "the store may take \(byteText(capacityByteCount)), before \(byteText(capacityByteCountBefore)); it takes "
      + "\(byteText(usedByteCount))\(over)\nopen it with that capacity_bytes from now on"
  }
}
