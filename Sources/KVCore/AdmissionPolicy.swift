/// Which new blocks are admitted to disk.
public enum AdmissionPolicy: String, CaseIterable, Sendable {
  /// Everything.
  case always
  /// What was offered before, and not too long ago.
  case secondTouch = "second-touch"
  /// Everything while there is room or enough of it comes back in time, and what goes on from a prompt known so far; else as `secondTouch`.
  case adaptive
}
