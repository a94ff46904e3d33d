import ArgumentParser
import Glibc
import KVStoreCLI
import LlamaCompanion
import Logging
import ServiceLifecycle
import UnixSignals

/// A package that brings both has the Swift runtime once: called `kvstore`, this is the command.
@main
enum Program {
  static func main() async {
    if KVStoreProgram.isCalled { return KVStoreProgram.main() }
    await KVStoreLlama.main()
  }
}

struct KVStoreLlama: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kvstore-llama",
    abstract: "Gives an unmodified llama-server a prompt cache that survives everything.",
    discussion: """
      Stands between clients and one llama-server. Each prompt's longest stored prefix is restored into a slot of the server
      before the request goes on, and what the server computes is stored. Clients use this address instead of the server's;
      every request goes through, also those that cannot be helped.

      The server and this command share a folder on tmpfs, which no one else may read:

        mkdir -m 700 /dev/shm/kvstore-llama
        llama-server -m model.gguf --port 8080 --slot-save-path /dev/shm/kvstore-llama
        kvstore-llama --server http://127.0.0.1:8080 --slots /dev/shm/kvstore-llama \\
          --store /var/cache/kvstore --listen 127.0.0.1:8081

      Both run as one user, who can read the model's file. With several slots, --no-cache-idle-slots or --cache-ram 0 lets
      requests start beside each other; without, one restore waits for the other.

      Each answer says what was found: "x-kvstore-prefix: 2048/2064 disk 41ms". The page /kvstore shows it live,
      /kvstore/requests tells why the rest was computed, /metrics counts for Prometheus.
      """
  )

  @Option(help: "The llama-server's address.")
  var server = "http://127.0.0.1:8080"

  @Option(help: "Where clients connect to.")
  var listen = "127.0.0.1:8081"

  @Option(help: "The store's folder; made when absent.")
  var store: String

  @Option(help: "The folder that the server has as --slot-save-path.")
  var slots = "/dev/shm/kvstore-llama"

  @Option(help: "The most bytes that the store takes on disk, for example 20GiB.")
  var capacity = "10GiB"

  @Option(help: "Bytes of RAM for blocks on their way.")
  var host = "256MiB"

  @Option(help: "The server's API key, for what is asked on our own (default: $LLAMA_API_KEY).")
  var apiKey: String?

  @Option(help: "Where the model's file is, if the server sees it under another path.")
  var model: String?

  @Flag(help: "Callers with different API keys share nothing.")
  var tenantByKey = false

  @Option(help: "With --tenant-by-key: the most bytes of one key.")
  var tenantQuota: String?

  @Option(help: "Seconds that a prefix lives without being used (default: until it is evicted).")
  var ttl: UInt64?

  @Option(
    help: "Writes a trace of all prompts for kvstore replay and plan: ids of blocks, no text."
  )
  var record: String?

  @Option(
    help: "Writes all completions in their own words, for kvstore lint; readable by its owner only."
  )
  var recordText: String?

  @Option(help: "Bytes of a request that are looked at; a longer one is passed on as it comes.")
  var bodyLimit = "64MiB"

  @Flag(help: "Keeps no request's text in memory; what it says of misses is in tokens then.")
  var noTexts = false

  @Flag(help: "Restores what is found even where computing it would be sooner.")
  var alwaysRestore = false

  @OptionGroup(title: "Remote tier")
  var remote: RemoteOptions

  @Option(help: "trace, debug, info, notice, warning, error or critical.")
  var logLevel = "info"

  func run() async throws {
    signal(SIGPIPE, SIG_IGN)
    guard let level = Logger.Level(rawValue: logLevel) else {
      throw ValidationError("unknown --log-level \(logLevel)")
    }
    LoggingSystem.bootstrap { label in
      var handler = StreamLogHandler.standardError(label: label)
      handler.logLevel = level
      return handler
    }
    let logger = Logger(label: "kvstore-llama")
    guard let colon = listen.lastIndex(of: ":"),
      let port = Int(listen[listen.index(after: colon)...]),
      (0...65_535).contains(port)
    else { throw ValidationError("--listen wants HOST:PORT") }
    guard server.hasPrefix("http://") || server.hasPrefix("https://") else {
      throw ValidationError("--server wants http://HOST:PORT")
    }
    let environmentKey = getenv("LLAMA_API_KEY").map { String(cString: $0) }
    let options = Options(
      serverURL: server,
      host: String(listen[..<colon]),
      port: port,
      storePath: store,
      slotFolder: slots,
      capacityBytes: try Self.byteCount(capacity, "--capacity"),
      hostBytes: try Self.byteCount(host, "--host"),
      apiKey: apiKey ?? environmentKey,
      modelPath: model,
      separatesTenants: tenantByKey,
      tenantQuotaBytes: try tenantQuota.map { UInt64(try Self.byteCount($0, "--tenant-quota")) },
      idleSeconds: ttl,
      recordPath: record,
      recordTextPath: recordText,
      keepsTexts: !noTexts,
      bodyByteCountMax: try Self.byteCount(bodyLimit, "--body-limit"),
      restoresAlways: alwaysRestore,
      remote: try remote.configuration(),
      remoteWaitNanoseconds: try remote.waitNanoseconds()
    )
    let companion: Companion
    do {
      companion = try Companion(options, logger: logger)
    } catch {
      logger.critical("\(error)")
      throw ExitCode(1)
    }
    if let mistake = await companion.remoteMistake() {
      logger.critical("\(mistake)")
      await companion.stop()
      throw ExitCode(1)
    }
    let front = try Front(companion, logger: logger).service()
    let group = ServiceGroup(
      configuration: .init(
        services: [
          .init(service: Background(companion: companion)),
          .init(service: front, failureTerminationBehavior: .gracefullyShutdownGroup),
        ],
        gracefulShutdownSignals: [.sigterm, .sigint],
        logger: logger
      )
    )
    do {
      try await group.run()
    } catch {
      logger.critical("\(error)")
      await companion.stop()
      throw ExitCode(1)
    }
    await companion.stop()
  }

  /// `10GiB`, `500MB` or a plain number.
  static func byteCount(_ text: String, _ option: String) throws -> Int {
    let units: [(String, Int)] = [
      ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("KB", 1000),
      ("MB", 1_000_000),
      ("GB", 1_000_000_000), ("TB", 1_000_000_000_000),
    ]
    for (unit, factor) in units where text.hasSuffix(unit) {
      if let value = Double(text.dropLast(unit.count)), value >= 0, value * Double(factor) < 1e18 {
        return Int(value * Double(factor))
      }
    }
    guard let value = Int(text), value >= 0 else {
      throw ValidationError("\(option) wants a size like 10GiB, not \(text)")
    }
    return value
  }
}

/// Keeps an eye on the server until everything stops.
struct Background: Service {
  let companion: Companion
  func run() async throws {
    await cancelWhenGracefulShutdown { await companion.run() }
  }
}
