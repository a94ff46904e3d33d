import Glibc

func readFile(_ path: String) throws -> [UInt8] {
  let file = open(path, O_RDONLY | O_CLOEXEC)
  guard file >= 0 else { throw NotHelped("\(path): \(String(cString: strerror(errno)))") }
  defer { close(file) }
  var result: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 1 << 16)
  while true {
    let count = read(file, &buffer, buffer.count)
    guard count >= 0 else { throw NotHelped("\(path): \(String(cString: strerror(errno)))") }
    if count == 0 { return result }
    result.append(contentsOf: buffer[..<count])
  }
}

/// Puts a file in place whole.
func writeFile(_ path: String, _ bytes: [UInt8]) throws {
  let unfinished = "\(path).\(getpid())"
  let file = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode_t(0o600))
  guard file >= 0 else { throw NotHelped("\(path): \(String(cString: strerror(errno)))") }
  var isWritten = true
  var offset = 0
  while offset < bytes.count {
    let count = bytes.withUnsafeBytes { write(file, $0.baseAddress! + offset, $0.count - offset) }
    guard count > 0 else {
      isWritten = false
      break
    }
    offset += count
  }
  close(file)
  guard isWritten, rename(unfinished, path) == 0 else {
    unlink(unfinished)
    throw NotHelped("\(path): \(String(cString: strerror(errno)))")
  }
}

func folderEntries(_ path: String) -> [String] {
  guard let folder = opendir(path) else { return [] }
  defer { closedir(folder) }
  var result: [String] = []
  while let entry = readdir(folder) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name != ".", name != ".." { result.append(name) }
  }
  return result
}

/// Nanoseconds of a clock that only goes forward.
func nowNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Milliseconds since then.
func milliseconds(since start: UInt64) -> Double { Double(nowNanoseconds() - start) / 1e6 }

/// Milliseconds since 1970.
func wallMilliseconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_REALTIME, &time)
  return Double(time.tv_sec) * 1000 + Double(time.tv_nsec) / 1e6
}
