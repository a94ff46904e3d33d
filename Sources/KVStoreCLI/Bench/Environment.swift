import FoundationEssentials
import Glibc

/// What the figures depend on besides the store.
enum Environment {
  static func lines(
    folder: String,
    options: BenchOptions,
    writtenByteCount: Int
  ) -> [String] {
    fieldLines([
      ("kvstore", KVStoreCommand.versionText + buildKind),
      ("CPU", "\(cpuName), \(ProcessInfo.processInfo.activeProcessorCount) cores"),
      ("memory", byteText(ProcessInfo.processInfo.physicalMemory)),
      ("kernel", kernel),
      ("file system", fileSystem(of: folder).description),
      ("folder", folder + (options.keep ? "" : " (removed afterwards)")),
      ("durability", "synced: a flush is counted where something is written"),
      (
        "blocks",
        "\(options.blockBytes) in \(counted(options.regionByteCounts.count, "region"))"
          + (options.model.map { ", as \($0.rawValue) has them" } ?? "")
      ),
      ("runs", "\(options.runs) of \(options.total), seed \(options.seed)"),
      ("eviction", options.evictionPolicy.rawValue),
      (
        "writes",
        "about \(byteText(writtenByteCount)) into that folder"
          + (options.effort == .quick ? "; --full takes more, and varies less" : "")
      ),
    ])
  }

  /// What a computation in memory depends on.
  static var shortLines: [String] {
    fieldLines([
      ("kvstore", KVStoreCommand.versionText + buildKind),
      ("CPU", "\(cpuName), \(ProcessInfo.processInfo.activeProcessorCount) cores"),
      ("kernel", kernel),
    ])
  }

  private static var buildKind: String {
    // assert runs its condition in debug builds only.
    var isDebug = false
    assert(
      {
        isDebug = true
        return true
      }()
    )
    return isDebug ? " (debug build: figures mean nothing)" : ""
  }

  private static var cpuName: String {
    let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
    let name = line?.split(separator: ":").last.map { $0.trimmed }
    return name ?? "unknown"
  }

  private static var kernel: String {
    let text = (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)) ?? ""
    return "Linux " + text.trimmed
  }

  /// Type and device of the mount that holds `folder`, by the longest mount point that leads to it.
  static func fileSystem(of folder: String) -> (type: String, description: String) {
    let path = resolvedPath(folder)
    let text = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
    var best: (point: Substring, type: Substring, description: String) = ("", "", "unknown")
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: " ")
      guard parts.count >= 3 else { continue }
      let point = parts[1]
      let leadsThere = point == "/" || path == point || path.hasPrefix(point + "/")
      // >=: of two mounts on one point the later one hides the other.
      guard leadsThere, point.count >= best.point.count else { continue }
      best = (point, parts[2], "\(parts[2]) on \(parts[0])")
    }
    return (String(best.type), best.description)
  }
}
