import ArgumentParser

/// What a mistyped subcommand was meant to be.
enum SubcommandHint {
  /// Nil where the arguments name commands that there are, or nothing is near.
  static func text(for arguments: [String]) -> String? {
    var children = named(KVStoreCommand.configuration.subcommands)
    var names = ["kvstore"]
    for argument in arguments {
      guard !children.isEmpty, !argument.hasPrefix("-") else { return nil }
      if let next = children.first(where: { $0.name == argument }) {
        children = named(next.subcommands)
        names.append(argument)
        continue
      }
      // Where one subcommand is the rule, the word may be its argument.
      guard !argument.contains("/"), fileStatus(argument) == nil, argument != "help" else {
        return nil
      }
      let near = children.filter {
        $0.isShown && distance(argument, $0.name) <= max(1, argument.count / 3)
      }
      let sorted = near.sorted { distance(argument, $0.name) < distance(argument, $1.name) }
      let parent = names.joined(separator: " ")
      guard let meant = sorted.first?.name ?? below(children, named: argument) else { return nil }
      return
        "there is no command \"\(parent) \(printable(argument))\". Did you mean \"\(parent) \(meant)\"?"
    }
    return nil
  }

  /// The command of that name a level further down: "inspect tree" for "tree".
  private static func below(_ children: [Child], named word: String) -> String? {
    for child in children where child.isShown {
      let match = named(child.subcommands).first { $0.isShown && $0.name == word }
      if let match { return "\(child.name) \(match.name)" }
    }
    return nil
  }

  private struct Child {
    var name: String
    var isShown: Bool
    var subcommands: [any ParsableCommand.Type]
  }

  private static func named(_ commands: [any ParsableCommand.Type]) -> [Child] {
    commands.map { command in
      let configuration = command.configuration
      return Child(
        name: configuration.commandName ?? "",
        isShown: configuration.shouldDisplay,
        subcommands: configuration.subcommands
      )
    }
  }

  /// Letters to insert, remove, replace or swap with their neighbour to make one word of the other.
  static func distance(_ left: String, _ right: String) -> Int {
    let (a, b) = (Array(left.lowercased().utf8), Array(right.lowercased().utf8))
    guard !a.isEmpty, !b.isEmpty, a.count <= 64 else { return max(a.count, b.count) }
    var rows = [Array(0...b.count)]
    for i in 1...a.count {
      var row = [i]
      for j in 1...b.count {
        let replaced = rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
        var best = min(rows[i - 1][j] + 1, row[j - 1] + 1, replaced)
        if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
          best = min(best, rows[i - 2][j - 2] + 1)
        }
        row.append(best)
      }
      rows.append(row)
    }
    return rows[a.count][b.count]
  }
}
