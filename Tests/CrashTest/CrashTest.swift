import ArgumentParser

/// Crashes of a store, and refusals of its disk.
@main struct CrashTest: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "crash-test",
    abstract: "Crashes a store, or lets its disk refuse, at every operation on its files.",
    subcommands: [CrashCommand.self, FaultCommand.self],
    defaultSubcommand: CrashCommand.self
  )
}
