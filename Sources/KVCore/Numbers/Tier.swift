/// The tiers, fastest first; raw values are those of the file format.
public enum Tier: UInt8, Sendable, CaseIterable {
  /// GPU memory.
  case device = 0
  /// The arena in RAM.
  case host = 1
  /// Slot files with raw payload.
  case disk = 2
  /// Slot files with compressed payload.
  case archive = 3
}
