import ArgumentParser
import FoundationEssentials
import Glibc
import KVCore
import KVFile

/// `kvstore doctor`: what of this machine a store would not like.
struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Say what is wrong with this machine, or a folder of it, for a store.",
    discussion: """
      Looks at the file system, free space, direct I/O, shared memory, limits, huge pages, PID namespace and clock, and \
      writes no more than one file of 2 MiB in the folder, which it removes. Exit status 1 if something keeps a store from \
      working; what only makes it slower is a note.

      EXAMPLES
        kvstore doctor /var/cache
        kvstore doctor --json
      """
  )

  @ArgumentParser.Argument(
    help: "Where a store is or is to be. (default: the current folder)",
    completion: .directory
  )
  var folder = "."

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    // Past the limit of a file's size the error is to be told, and not to end this process.
    _ = signal(SIGXFSZ, SIG_IGN)
    var examination = Examination(folder: folder)
    examination.look()
    let document = DoctorDocument(folder: resolvedPath(folder), findings: examination.findings)
    print(json ? try jsonText(document) : document.lines.joined(separator: "\n"))
    if document.findings.contains(where: { $0.verdict == .bad }) { throw ExitCode.failure }
  }
}

/// The JSON of `doctor`.
struct DoctorDocument: CommandDocument {
  static let schema = "doctor"

  enum Verdict: String, Encodable { case good, note, bad }

  struct Finding: Encodable {
    var what: String
    var verdict: Verdict
    /// What was found.
    var found: String
    /// What to do; nil where nothing is.
    var advice: String?
  }

  var folder: String
  var findings: [Finding]

  /// The document for people.
  var lines: [String] {
    var table = TextTable([("", .left), ("", .left), ("", .left)])
    for finding in findings {
      let mark =
        switch finding.verdict {
        case .good: "ok"
        case .note: "note"
        case .bad: "BAD"
        }
      table.append([mark, finding.what, finding.found])
      if let advice = finding.advice { table.append(["", "", "→ \(advice)"]) }
    }
    return table.lines(hasHeadings: false)
  }
}

/// Looks at one thing after the other.
private struct Examination {
  let folder: String
  var findings: [DoctorDocument.Finding] = []

  init(folder: String) { self.folder = folder }

  mutating func look() {
    lookAtFolder()
    lookAtSharedMemory()
    lookAtLimits()
    lookAtMemory()
    lookAtProcesses()
    lookAtClock()
  }

  private mutating func add(
    _ what: String,
    _ verdict: DoctorDocument.Verdict,
    _ found: String,
    _ advice: String? = nil
  ) {
    findings.append(.init(what: what, verdict: verdict, found: found, advice: advice))
  }

  private mutating func lookAtFolder() {
    guard isFolder(folder) else {
      return add("folder", .bad, "there is no folder \(folder)", "make it, or name another one")
    }
    guard unsafe access(folder, W_OK | X_OK) == 0 else {
      return add("folder", .bad, "\(folder) cannot be written to: \(errorText(errno))")
    }
    let (type, description) = Environment.fileSystem(of: folder)
    let network = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "fuse", "9p", "virtiofs"]
    if network.contains(where: { type == $0 || type.hasPrefix($0 + ".") }) {
      add(
        "file system",
        .bad,
        description,
        "a store needs a local file system: its catalog is a shared memory map"
      )
    } else if ["tmpfs", "ramfs"].contains(type) {
      add("file system", .note, description, "nothing on it survives a restart of the machine")
    } else if type == "overlay" {
      add(
        "file system",
        .note,
        description,
        "in a container, keep the store on a volume: it goes with the container otherwise"
      )
    } else {
      add("file system", .good, description)
    }
    var space = statvfs()
    if unsafe statvfs(folder, &space) == 0 {
      let free = Int(clamping: UInt64(space.f_bavail) * UInt64(space.f_frsize))
      let total = Int(clamping: UInt64(space.f_blocks) * UInt64(space.f_frsize))
      let text = "\(byteText(free)) free of \(byteText(total))"
      if free < 64 << 20 {
        add("space", .bad, text, "the smallest store has 64 MiB")
      } else if free < 11 << 30 {
        add("space", .note, text, "the default capacity is 10 GiB: give a smaller one")
      } else {
        add("space", .good, text)
      }
      if space.f_ffree == 0, space.f_files > 0 {
        add("inodes", .bad, "none is free", "a store has a few dozen files")
      }
    }
    lookAtDirectIO()
  }

  private mutating func lookAtDirectIO() {
    let path = "\(folder)/.kvstore-doctor-\(getpid())"
    defer { unsafe unlink(path) }
    let storage = LinuxStorage()
    do throws(FileError) {
      let file = try storage.openFile(path, mode: .create, direct: true)
      try file.allocate(byteCount: 2 << 20)
      if file.isDirect {
        add("direct I/O", .good, "O_DIRECT works")
      } else {
        add(
          "direct I/O",
          .note,
          "the file system has no O_DIRECT",
          "the store goes through the page cache: slower, and twice in RAM"
        )
      }
      try file.sync()
    } catch {
      add("direct I/O", .bad, "cannot \(error.operation): \(errorText(error.errno))")
    }
  }

  private mutating func lookAtSharedMemory() {
    guard let free = freeByteCount(at: "/dev/shm"), unsafe access("/dev/shm", W_OK) == 0 else {
      return add(
        "/dev/shm",
        .bad,
        "cannot be written to: \(errorText(errno))",
        "processes that share a store keep their leases there; mount a tmpfs on it"
      )
    }
    if free < 8 << 20 {
      add("/dev/shm", .bad, "\(byteText(free)) free", "leases of each store take a few MiB of it")
    } else {
      add("/dev/shm", .good, "\(byteText(free)) free")
    }
  }

  private mutating func lookAtLimits() {
    var files = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)
    if files.rlim_cur < 256 {
      add("open files", .note, "at most \(files.rlim_cur)", "raise it: ulimit -n 1024")
    } else {
      add("open files", .good, "at most \(files.rlim_cur)")
    }
    var space = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &space)
    if space.rlim_cur == rlim_t.max {
      add("address space", .good, "unlimited")
    } else {
      add(
        "address space",
        .note,
        "at most \(byteText(Int(clamping: space.rlim_cur)))",
        "the catalog and the host tier are mapped: their sizes count (ulimit -v)"
      )
    }
    var size = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &size)
    if size.rlim_cur != rlim_t.max {
      add(
        "file size",
        .bad,
        "at most \(byteText(Int(clamping: size.rlim_cur)))",
        "slot files are larger (ulimit -f unlimited)"
      )
    }
  }

  private mutating func lookAtMemory() {
    func text(_ path: String) -> String? {
      (try? readFile(path)).map { String(decoding: $0, as: UTF8.self).trimmed }
    }
    let pages = text("/sys/kernel/mm/transparent_hugepage/enabled") ?? "not there"
    if pages.contains("[never]") || pages == "not there" {
      add(
        "huge pages",
        .note,
        "transparent huge pages: \(pages)",
        "the host tier is touched in 4 KiB pages: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
      )
    } else {
      add("huge pages", .good, "transparent huge pages: \(pages)")
    }
    let information = text("/proc/meminfo") ?? ""
    for line in information.split(separator: "\n") where line.hasPrefix("MemAvailable:") {
      let available = (Int(line.filter(\.isNumber)) ?? 0) << 10
      if available < 512 << 20 {
        add("memory", .note, "\(byteText(available)) available", "the default host tier is 256 MiB")
      } else {
        add("memory", .good, "\(byteText(available)) available")
      }
    }
  }

  private mutating func lookAtProcesses() {
    // The first process of the machine's own namespace is its init or a kernel's; inside a container it is what was started.
    var buffer = [CChar](repeating: 0, count: 64)
    let count = unsafe readlink("/proc/self/ns/pid", &buffer, buffer.count - 1)
    let name =
      count > 0
      ? String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self) : "unknown"
    // 4026531836: PROC_PID_INIT_INO of the kernel's headers.
    if name == "pid:[4026531836]" || name == "unknown" {
      add("PID namespace", .good, "the machine's own")
    } else {
      add(
        "PID namespace",
        .note,
        "a container's (\(name))",
        "processes that share a store must share it, and /dev/shm: --pid=container:..., --ipc=container:..."
      )
    }
  }

  private mutating func lookAtClock() {
    let now = Int(time(nil))
    // 2025-01-01.
    if now < 1_735_689_600 {
      add(
        "clock",
        .bad,
        "it is \(clockText(nanoseconds: UInt64(max(0, now)) * 1_000_000_000)) here",
        "set it: TTLs and pins end by it"
      )
      return
    }
    add("clock", .good, clockText(nanoseconds: UInt64(now) * 1_000_000_000) + " here")
  }
}
