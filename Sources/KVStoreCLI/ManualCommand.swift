import ArgumentParser
import FoundationEssentials

/// `kvstore manual`: the manual pages, made from what the commands say of themselves.
///
/// Hidden: `Scripts/install` calls it.
struct ManualCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "manual",
    abstract: "Write the manual pages of all commands into a folder.",
    shouldDisplay: false
  )

  @ArgumentParser.Argument(help: "The folder, which must be there.", completion: .directory)
  var folder: String

  func run() throws {
    let text = KVStoreCommand._dumpHelp()
    let help: HelpDump
    do { help = try JSONDecoder().decode(HelpDump.self, from: Data(text.utf8)) } catch {
      throw CommandFailure("the commands' help has another form than this program knows: \(error)")
    }
    try write(help.command, parents: [])
  }

  /// A page for each command that has options of its own.
  private func write(_ command: HelpDump.Command, parents: [HelpDump.Command]) throws {
    let names = (parents + [command]).map(\.commandName)
    let page = ManualPage(command, names: names, isRoot: parents.isEmpty)
    let path = "\(folder)/\(names.joined(separator: "-")).1"
    try writeFile(path, page.text)
    for child in command.shownSubcommands { try write(child, parents: parents + [command]) }
  }
}

/// What `--experimental-dump-help` prints, as far as a manual page needs it.
struct HelpDump: Decodable {
  struct Command: Decodable {
    var commandName: String
    var abstract: String?
    var discussion: String?
    var shouldDisplay: Bool?
    var subcommands: [Command]?
    var arguments: [Argument]?

    var shownSubcommands: [Command] {
      (subcommands ?? []).filter { $0.shouldDisplay != false && $0.commandName != "help" }
    }
  }

  struct Argument: Decodable {
    struct Name: Decodable {
      var kind: String
      var name: String

      var text: String { (kind == "short" || kind == "longWithSingleDash" ? "-" : "--") + name }
    }

    var kind: String
    var shouldDisplay: Bool?
    var isOptional: Bool?
    var isRepeating: Bool?
    var names: [Name]?
    var valueName: String?
    var defaultValue: String?
    var abstract: String?
    var discussion: String?
  }

  var command: Command
}

/// A page in the macros of man(7).
struct ManualPage {
  private(set) var text: String

  init(_ command: HelpDump.Command, names: [String], isRoot: Bool) {
    let title = names.joined(separator: "-")
    let arguments = (command.arguments ?? []).filter { $0.shouldDisplay != false }
    var lines = [
      ".TH \(Self.quoted(title.uppercased())) 1 \"\" \"kvstore \(KVStoreCommand.versionText)\" \"kvstore\"",
      ".SH NAME",
      "\(Self.escaped(title)) \\- \(Self.escaped(command.abstract ?? ""))",
      ".SH SYNOPSIS",
      ".B \(Self.escaped(names.joined(separator: " ")))",
      Self.escaped(Self.synopsis(arguments, hasSubcommands: !command.shownSubcommands.isEmpty)),
    ]
    var isExample = false
    if let discussion = command.discussion, !discussion.isEmpty {
      lines.append(".SH DESCRIPTION")
      for line in discussion.split(separator: "\n", omittingEmptySubsequences: false) {
        if line == "EXAMPLES" {
          lines += [".SH EXAMPLES", ".nf"]
          isExample = true
        } else if line.isEmpty, !isExample {
          lines.append(".PP")
        } else {
          lines.append(Self.escaped(String(line)))
        }
      }
      if isExample { lines.append(".fi") }
    }
    if !arguments.isEmpty {
      lines.append(".SH OPTIONS")
      for argument in arguments {
        lines += [".TP", Self.escaped(Self.nameText(argument))]
        var help = argument.abstract ?? ""
        if let value = argument.defaultValue, argument.kind == "option" {
          help += " (default: \(value))"
        }
        lines.append(Self.escaped(help.isEmpty ? "–" : help))
        if let more = argument.discussion, !more.isEmpty { lines.append(Self.escaped(more)) }
      }
    }
    if !command.shownSubcommands.isEmpty {
      lines.append(".SH COMMANDS")
      for child in command.shownSubcommands {
        let page = (names + [child.commandName]).joined(separator: "-")
        lines += [
          ".TP", "\\fB\(Self.escaped(page))\\fR(1)", Self.escaped(child.abstract ?? ""),
        ]
      }
    }
    lines.append(".SH EXIT STATUS")
    lines.append("0; 1 with a message on stderr; 64 for a wrong command line.")
    if !isRoot { lines += [".SH SEE ALSO", "\\fBkvstore\\fR(1)"] }
    text = lines.joined(separator: "\n") + "\n"
  }

  private static func nameText(_ argument: HelpDump.Argument) -> String {
    let value = "<\(argument.valueName ?? "value")>"
    let names = (argument.names ?? []).map(\.text).joined(separator: ", ")
    switch argument.kind {
    case "positional": return value
    case "option": return "\(names) \(value)"
    default: return names
    }
  }

  private static func synopsis(_ arguments: [HelpDump.Argument], hasSubcommands: Bool) -> String {
    var parts: [String] = []
    for argument in arguments where argument.kind != "positional" {
      guard let name = argument.names?.first?.text else { continue }
      let text = argument.kind == "option" ? "\(name) <\(argument.valueName ?? "value")>" : name
      parts.append(argument.isOptional == false ? text : "[\(text)]")
    }
    for argument in arguments where argument.kind == "positional" {
      parts.append("<\(argument.valueName ?? "value")>")
    }
    if hasSubcommands { parts.append("<command>") }
    return parts.joined(separator: " ")
  }

  private static func quoted(_ text: String) -> String { "\"\(escaped(text))\"" }

  /// A line that begins with a dot or an apostrophe would be a macro; hyphens are to stay what they are.
  private static func escaped(_ text: String) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
      let escaped = line.replacingOccurrences(of: "\\", with: "\\e")
        .replacingOccurrences(of: "-", with: "\\-")
      return escaped.hasPrefix(".") || escaped.hasPrefix("'") ? "\\&" + escaped : escaped
    }.joined(separator: "\n")
  }
}
