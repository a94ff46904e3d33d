/// The command as a part of a program: of `kvstore`, and of `kvstore-llama`, which is the command where it is called by its name.
public enum KVStoreProgram {
  /// What the command is called.
  public static let name = "kvstore"

  /// Whether this process was started under the command's name, whatever the program's file is called.
  public static var isCalled: Bool {
    CommandLine.arguments.first?.split(separator: "/").last.map(String.init) == name
  }

  /// Runs the command that the arguments name.
  public static func main() { KVStoreCommand.main() }
}
