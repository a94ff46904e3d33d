internal import KVRemote

/// One command, ready to be sent, and what its reply is.
///
/// Unsafe: the pieces are the caller's memory, valid until the call returns.
@safe struct Request {
  /// The node that gets it: by its key's slot, or a certain one.
  enum Target {
    case slot(KeySlot)
    case node(Node)
  }

  let target: Target
  /// The command up to the pieces.
  let head: [UInt8]
  let pieces: [UnsafeRawBufferPointer]
  /// What follows the pieces.
  let tail: [UInt8]
  /// The reply is a string that goes into the caller's memory.
  let takesBulk: Bool

  init(_ target: Target, _ arguments: [String], takesBulk: Bool = false) {
    self.target = target
    head = Self.encoded(arguments)
    unsafe pieces = []
    tail = []
    self.takesBulk = takesBulk
  }

  /// A command as it is sent.
  static func encoded(_ arguments: [String]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(32 + arguments.reduce(0) { $0 + $1.utf8.count + 8 })
    begin(&bytes, argumentCount: arguments.count)
    for argument in arguments { append(&bytes, argument) }
    return bytes
  }

  /// A command on one key.
  init(_ command: String, _ name: RemoteName, _ rest: [String] = [], takesBulk: Bool = false) {
    self.init(
      .slot(KeySlot(key: name.text.utf8)),
      [command, name.text] + rest,
      takesBulk: takesBulk
    )
  }

  /// `SET name pieces options…`.
  init(
    setting name: RemoteName,
    to pieces: [UnsafeRawBufferPointer],
    byteCount: Int,
    options: [String]
  ) {
    target = .slot(KeySlot(key: name.text.utf8))
    var head: [UInt8] = []
    Self.begin(&head, argumentCount: 3 + options.count)
    Self.append(&head, "SET")
    Self.append(&head, name.text)
    head += Array("$\(byteCount)\r\n".utf8)
    self.head = head
    unsafe self.pieces = pieces
    var tail = Array("\r\n".utf8)
    for option in options { Self.append(&tail, option) }
    self.tail = tail
    takesBulk = false
  }

  private static func begin(_ bytes: inout [UInt8], argumentCount: Int) {
    bytes.append(contentsOf: "*\(argumentCount)\r\n".utf8)
  }

  private static func append(_ bytes: inout [UInt8], _ argument: String) {
    bytes.append(contentsOf: "$\(argument.utf8.count)\r\n".utf8)
    bytes.append(contentsOf: argument.utf8)
    bytes.append(contentsOf: "\r\n".utf8)
  }
}
