import KVStoreCLI

@main
enum Main {
  static func main() { KVStoreProgram.main() }
}
