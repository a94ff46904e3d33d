/// Why a server's requests are passed on as they are.
struct NotHelped: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}
