/// How one block of a transfer fared.
public enum BlockOutcome: Sendable, Equatable {
  /// Moved, or there already.
  case done
  /// Not stored, or its check failed.
  case miss
  /// A region does not fit its span.
  case bufferTooSmall
  /// No room.
  case full
  /// The block before it is not stored.
  case parentMissing
  /// The deadline passed before its turn.
  case busy
  /// Offload: not admitted, and so not taken.
  case declined
}
