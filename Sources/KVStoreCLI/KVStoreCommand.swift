import ArgumentParser
import CCallBench
import KVStore

/// The command `kvstore`.
struct KVStoreCommand: ParsableCommand {
  /// That of kvstore.h.
  static let versionText = unsafe String(cString: call_bench_version())

  static let configuration = CommandConfiguration(
    commandName: "kvstore",
    abstract: "Look inside a store of KV blocks, check it, and measure it.",
    discussion: """
      A store is the folder that an inference engine gave to kvstore_open.

      EXAMPLES
        kvstore doctor /var/cache
        kvstore init /var/cache/my-engine --capacity 200G
        kvstore inspect /var/cache/my-engine
        kvstore inspect tree /var/cache/my-engine --limit 50
        kvstore verify /var/cache/my-engine
        kvstore lint requests.jsonl
        kvstore bench
        kvstore bench restore --block-bytes 288KiB --json
      """,
    version: versionText,
    subcommands: [
      InspectCommand.self, TopCommand.self, InitCommand.self, DoctorCommand.self,
      UsageCommand.self, VerifyCommand.self, RepairCommand.self, ForgetCommand.self,
      PurgeCommand.self,
      GCCommand.self, PinCommand.self, UnpinCommand.self, ExportCommand.self,
      ImportCommand.self, GrowCatalogCommand.self, SetCommand.self, WeightsDigestCommand.self,
      LintCommand.self, RemoteCommand.self,
      BenchCommand.self, ReplayCommand.self, PlanCommand.self, ManualCommand.self,
    ]
  )
}
