import Foundation

/// Prints a line at once, also into a pipe: whoever watches sees where a run is, or where it ended.
func say(_ line: String) {
  print(line)
  fflush(nil)
}
