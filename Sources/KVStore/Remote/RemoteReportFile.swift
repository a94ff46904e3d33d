internal import Glibc
package import KVCore
internal import KVFile

/// Where a process keeps its report for others to see: a file of its own beside the shared tables.
///
/// Not in the tables: most stores have no remote tier, and a report has no fixed size. One thread of the process, the follower, writes;
/// who reads keeps nobody waiting, and a report that is just being written fails its checksum and is read again. Files of processes that
/// have ended mean nothing, and go when another one comes.
package final class RemoteReportFile: Sendable {
  private final class Descriptor: Sendable {
    let value: FileDescriptor
    init(_ value: consuming FileDescriptor) { self.value = value }
  }

  private let path: String
  private let descriptor: Descriptor
  private let published = Monitor<[UInt8]>([])

  private static let prefix = "remote-"

  private static func name(of owner: OwnerID) -> String { "\(prefix)\(owner.rawValue)" }

  /// nil where there is no place for it: then nobody sees a report.
  init?(in folder: String?, _ owner: OwnerID, isDead: (OwnerID) -> Bool) {
    guard let folder else { return nil }
    let names = (try? LinuxStorage().list(folder)) ?? []
    for name in names where name.hasPrefix(Self.prefix) {
      guard let number = UInt32(name.dropFirst(Self.prefix.count)),
        isDead(OwnerID(rawValue: number))
      else { continue }
      unsafe unlink(folder + "/" + name)
    }
    path = folder + "/" + Self.name(of: owner)
    do throws(FileError) {
      let status = try FileStatus(ofPath: folder)
      descriptor = Descriptor(try FileDescriptor.openNoFollow(path, ownedBy: status.owner))
    } catch {
      return nil
    }
  }

  func publish(_ report: RemoteReport) {
    let bytes = report.encoded
    published.withLock { published in
      guard bytes != published, bytes.count <= RemoteReport.byteCountMax else { return }
      let count = unsafe bytes.withUnsafeBytes { bytes in
        unsafe pwrite(descriptor.value.rawValue, bytes.baseAddress, bytes.count, 0)
      }
      // One that did not fit is none, and is written again.
      guard count == bytes.count, ftruncate(descriptor.value.rawValue, count) == 0 else { return }
      published = bytes
    }
  }

  /// At close.
  func remove() { unsafe unlink(path) }

  /// What a process says; nil when it has no remote tier.
  package static func read(_ folder: String?, _ owner: OwnerID) -> RemoteReport? {
    guard let folder else { return nil }
    for _ in 0..<20 {
      do throws(FileError) {
        let path = folder + "/" + name(of: owner)
        let descriptor = try FileDescriptor.openExistingNoFollow(path, toWrite: false)
        var bytes = [UInt8](repeating: 0, count: RemoteReport.byteCountMax)
        let count = unsafe pread(descriptor.rawValue, &bytes, bytes.count, 0)
        if count > 0, let report = RemoteReport(Array(bytes.prefix(count))) { return report }
      } catch {
        return nil
      }
      usleep(1000)
    }
    return nil
  }
}
