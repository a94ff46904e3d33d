import Glibc
import KVFuzzTargets

// Unsafe: libFuzzer is C, and lends bytes by pointer.

/// Runs files of a corpus through a parser; built with `-D FUZZING -sanitize=fuzzer`, looks for new ones (`Scripts/fuzz`).
@main
struct FuzzParsers {
  static func main() {
    let arguments = CommandLine.arguments
    guard arguments.count > 1, let target = FuzzTarget(rawValue: arguments[1]) else {
      print(
        "usage: fuzz-parsers TARGET FILE... | TARGET --seeds FOLDER\ntargets: \(FuzzTarget.allCases.map(\.rawValue))"
      )
      return
    }
    if arguments.count == 4, arguments[2] == "--seeds" {
      for (index, seed) in target.seeds.enumerated()
      where !writeFile("\(arguments[3])/seed-\(index)", seed) {
        print("fuzz-parsers: cannot write to \(arguments[3])")
      }
      return
    }
    fuzz(target, Array(arguments.dropFirst(2)))
  }
}

#if FUZZING
  nonisolated(unsafe) private var chosen = FuzzTarget.slotHeader

  /// One run; libFuzzer knows it by this name.
  @_cdecl("LLVMFuzzerTestOneInput")
  public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ byteCount: Int) -> Int32 {
    chosen.run(UnsafeRawBufferPointer(start: bytes, count: byteCount))
    return 0
  }

  @_silgen_name("LLVMFuzzerRunDriver")
  func runDriver(
    _ count: UnsafeMutablePointer<Int32>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
  ) -> Int32

  /// Hands over to libFuzzer with the arguments behind the target's name.
  func fuzz(_ target: FuzzTarget, _ arguments: [String]) {
    chosen = target
    var count = Int32(arguments.count + 1)
    let list = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(
      capacity: arguments.count + 2
    )
    for (index, argument) in (["fuzz-parsers"] + arguments + [""]).enumerated() {
      let copy = UnsafeMutablePointer<CChar>.allocate(capacity: argument.utf8.count + 1)
      for (offset, byte) in (Array(argument.utf8) + [0]).enumerated() {
        copy[offset] = CChar(bitPattern: byte)
      }
      list[index] = copy
    }
    list[arguments.count + 1] = nil
    var pointer: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = list
    exit(runDriver(&count, &pointer, fuzzOneInput))
  }
#else
  /// Runs each of these files once.
  func fuzz(_ target: FuzzTarget, _ files: [String]) {
    for file in files {
      guard let bytes = readFile(file) else {
        print("fuzz-parsers: cannot read \(file)")
        continue
      }
      target.run(bytes)
    }
    print("fuzz-parsers: \(files.count) files")
  }
#endif
