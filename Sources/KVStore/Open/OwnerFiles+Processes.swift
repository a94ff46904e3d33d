internal import Glibc
package import KVCore
internal import KVFile

extension OwnerFiles {
  /// The living owners and their processes, by number.
  package func processes() -> [(owner: OwnerID, processID: Int32)] {
    owners().living.sorted { $0.rawValue < $1.rawValue }.compactMap { owner in
      isOwn(owner) ? (owner, getpid()) : holder(of: owner).map { (owner, $0) }
    }
  }

  /// What the operating system calls a process; empty when it does not say.
  package static func processName(_ processID: Int32) -> String {
    do throws(FileError) {
      let descriptor = try FileDescriptor.open("/proc/\(processID)/comm", mode: .readOnly)
      var buffer = [UInt8](repeating: 0, count: 64)
      let count = unsafe Glibc.read(descriptor.rawValue, &buffer, 64)
      guard count > 0 else { return "" }
      return String(decoding: buffer[..<count].prefix { $0 != 10 }, as: UTF8.self)
    } catch {
      return ""
    }
  }
}
