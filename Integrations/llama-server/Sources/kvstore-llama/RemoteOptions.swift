import ArgumentParser
import Glibc
import KVStore

/// The store's remote tier, by options of the command line or by variables.
///
/// A variable for each of them: `KVSTORE_REMOTE`, `KVSTORE_REMOTE_KEY_FILE` and so on. Secrets come by files only.
struct RemoteOptions: ParsableArguments {
  @Option(
    help: """
      A tier outside this machine that other stores share: redis://HOST:PORT, rediss:// with TLS, several hosts of a \
      cluster separated by commas; no password. Each of these options can also be a variable: $KVSTORE_REMOTE and so on (a flag is 1).
      """
  )
  var remote: String?

  @Option(help: "A file (0600) with lines password=SECRET and, for an ACL user, user=NAME.")
  var remoteCredentialsFile: String?

  @Option(help: "Certificates of those who may vouch for the server (default: the system's).")
  var remoteCaFile: String?

  @Option(help: "A file (0600) with the key that all machines share, 32 to 4096 bytes.")
  var remoteKeyFile: String?

  @Option(help: "What is written there: off, reused (the default) or all.")
  var remoteWrites: String?

  @Option(help: "How it is written: raw (the default), or frames, compressed without loss.")
  var remoteEncoding: String?

  @Flag(help: "Blocks that are about to leave by eviction are sent there as well.")
  var remoteDemotes = false

  @Option(help: "The most that is written there in a day, for example 200GiB.")
  var remoteWriteBudget: String?

  @Option(help: "Seconds that objects live there whose blocks have no end of their own.")
  var remoteTtlSeconds: String?

  @Option(help: "How long a prompt waits for what is there of it (2).")
  var remoteWaitSeconds: String?

  @Option(help: "For a round of questions, connecting included (0.25).")
  var remoteLookUpTimeoutSeconds: String?

  @Option(help: "For a transfer of up to eight chunks (2).")
  var remoteTransferTimeoutSeconds: String?

  func configuration() throws -> RemoteConfiguration {
    var result = RemoteConfiguration()
    result.url = Self.value(remote, "") ?? ""
    result.credentialsFile = Self.value(remoteCredentialsFile, "-credentials-file") ?? ""
    result.caFile = Self.value(remoteCaFile, "-ca-file") ?? ""
    result.keyFile = Self.value(remoteKeyFile, "-key-file") ?? ""
    switch Self.value(remoteWrites, "-writes") {
    case nil, "reused": result.writes = .reused
    case "all": result.writes = .all
    case "off": result.writes = .off
    case let other?:
      throw ValidationError("--remote-writes is off, reused or all, not \(other)")
    }
    switch Self.value(remoteEncoding, "-encoding") {
    case nil, "raw": result.encoding = .raw
    case "frames": result.encoding = .frames
    case let other?:
      throw ValidationError("--remote-encoding is raw or frames, not \(other)")
    }
    result.demotes = remoteDemotes || Self.value(nil, "-demotes") == "1"
    if let text = Self.value(remoteWriteBudget, "-write-budget") {
      result.writeBytesPerDay = try KVStoreLlama.byteCount(text, "--remote-write-budget")
    }
    if let seconds = try Self.seconds(remoteTtlSeconds, "-ttl-seconds", 1...4_294_967_296) {
      result.timeToLiveSeconds = Int(seconds)
    }
    if let seconds = try Self.seconds(
      remoteLookUpTimeoutSeconds,
      "-look-up-timeout-seconds",
      0.001...60
    ) {
      result.lookUpTimeoutNanoseconds = UInt64(seconds * 1e9)
    }
    if let seconds = try Self.seconds(
      remoteTransferTimeoutSeconds,
      "-transfer-timeout-seconds",
      0.001...600
    ) {
      result.transferTimeoutNanoseconds = UInt64(seconds * 1e9)
    }
    guard result.url.isEmpty else { return result }
    for (file, option) in [
      (result.credentialsFile, "credentials"), (result.caFile, "ca"), (result.keyFile, "key"),
    ] where !file.isEmpty {
      throw ValidationError("--remote-\(option)-file is given, and --remote is not")
    }
    return result
  }

  func waitNanoseconds() throws -> UInt64 {
    UInt64((try Self.seconds(remoteWaitSeconds, "-wait-seconds", 0...600) ?? 2) * 1e9)
  }

  /// Of the command line, or else of the environment.
  private static func value(_ given: String?, _ option: String) -> String? {
    if let given { return given }
    let name = "KVSTORE_REMOTE" + option.uppercased().map { $0 == "-" ? "_" : $0 }
    guard let text = getenv(name).map({ String(cString: $0) }), !text.isEmpty else { return nil }
    return text
  }

  private static func seconds(
    _ given: String?,
    _ option: String,
    _ range: ClosedRange<Double>
  ) throws -> Double? {
    guard let text = value(given, option) else { return nil }
    guard let seconds = Double(text), range.contains(seconds) else {
      throw ValidationError(
        "--remote\(option) is a number from \(range.lowerBound) to \(range.upperBound), not \(text)"
      )
    }
    return seconds
  }
}
