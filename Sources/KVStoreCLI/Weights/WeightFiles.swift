import FoundationEssentials
import Glibc

/// The files of a model's weights.
///
/// The Python package finds them by the same rules (`kvstore.weights.weight_files`), so that both make one digest of them.
struct WeightFiles {
  /// In the order of their paths' bytes, below the model's folder.
  let paths: [String]

  private static let suffixes = [".safetensors", ".bin", ".pt", ".pth", ".gguf"]

  /// model: a file (of a GGUF in parts, any part), a folder, or the name of a model in the Hugging Face cache.
  init(model: String, revision: String) throws {
    if let isFolder = Self.isFolder(model) {
      paths = isFolder ? Self.inFolder(model) : Self.parts(ofFile: model)
    } else if let folder = Self.snapshot(ofModel: model, revision: revision) {
      paths = Self.inFolder(folder)
    } else {
      throw CommandFailure(
        "\(model): there is no such file or folder, nor is it in the Hugging Face cache"
      )
    }
    guard !paths.isEmpty else {
      throw CommandFailure(
        "\(model): no weight files (\(Self.suffixes.joined(separator: ", "))) are in this folder"
      )
    }
  }

  /// Whether it is a folder, links followed; nil: there is nothing of this name.
  private static func isFolder(_ path: String) -> Bool? {
    var state = stat()
    guard unsafe stat(path, &state) == 0 else { return nil }
    return state.st_mode & S_IFMT == S_IFDIR
  }

  private static func inFolder(_ folder: String) -> [String] {
    func names(below path: String) -> [String] {
      folderEntries("\(folder)/\(path)").flatMap { entry -> [String] in
        let name = path.isEmpty ? entry : "\(path)/\(entry)"
        var state = stat()
        // A link to a folder is not followed, one to a file is.
        if unsafe lstat("\(folder)/\(name)", &state) == 0, state.st_mode & S_IFMT == S_IFDIR {
          return names(below: name)
        }
        guard suffixes.contains(where: entry.hasSuffix), isFolder("\(folder)/\(name)") == false
        else { return [] }
        return [name]
      }
    }
    return names(below: "").sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
      .map { "\(folder)/\($0)" }
  }

  /// All parts of a GGUF that was split, as llama.cpp names them; else the file alone.
  private static func parts(ofFile path: String) -> [String] {
    guard let tail = path.firstMatch(of: /-([0-9]{5})-of-([0-9]{5})\.gguf$/),
      let count = Int(tail.2), count > 0
    else { return [path] }
    let stem = path[..<tail.range.lowerBound]
    let digits = { (number: Int) in
      String(repeating: "0", count: max(0, 5 - "\(number)".count)) + "\(number)"
    }
    let all = (1...count).map { "\(stem)-\(digits($0))-of-\(digits(count)).gguf" }
    return all.filter { fileStatus($0) != nil }
  }

  private static func snapshot(ofModel model: String, revision: String) -> String? {
    let environment = ProcessInfo.processInfo.environment
    let home = environment["HF_HOME"] ?? "\(homeFolder())/.cache/huggingface"
    let cache =
      environment["HF_HUB_CACHE"] ?? environment["HUGGINGFACE_HUB_CACHE"] ?? "\(home)/hub"
    let folder = "\(cache)/models--" + model.split(separator: "/").joined(separator: "--")
    let commit = (try? String(contentsOfFile: "\(folder)/refs/\(revision)", encoding: .utf8))?
      .trimmed
    let snapshot = "\(folder)/snapshots/\(commit ?? revision)"
    return fileStatus(snapshot) != nil ? snapshot : nil
  }
}
