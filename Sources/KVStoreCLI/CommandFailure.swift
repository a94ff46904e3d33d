import Glibc
import KVCore
import KVFile
import KVStore

/// What went wrong, in words: printed on stderr, exit status 1.
struct CommandFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// Runs a command's work, and puts the errors of lower layers into words.
func reportingErrors(at path: String, _ body: () throws -> Void) throws {
  do { try body() } catch let error as StoreError {
    throw CommandFailure("\(path): \(error.message)\(error.detail)")
  } catch let error as FileError {
    throw CommandFailure("\(path): cannot \(error.operation): \(errorText(error.errno))")
  }
}

/// The kernel's words for an `errno`.
func errorText(_ code: Int32) -> String {
  guard let text = unsafe strerror(code) else { return "error \(code)" }
  return unsafe String(cString: text)
}

extension StoreError {
  /// What to try next, where the message alone leaves someone at the command line wondering.
  fileprivate var detail: String {
    switch self {
    case .io(.createFolder, errno: ENOENT): " (there is no such folder)"
    case .io(.openCatalog, errno: ENOENT): " (there is no store in this folder)"
    default: ""
    }
  }
}
