package import KVCore

/// What became of a block that was to be published.
///
/// Only `.stored` has used up its reservation.
package enum PublishOutcome: Sendable, Equatable {
  case stored(BlockPosition)
  /// The same block is there already; its life and priority are not less than they were asked for.
  case duplicate(BlockPosition)
  /// The same block is there, but it has expired: remove it (`.expired`), then publish again.
  case expired(BlockPosition)
  /// The key leads to another block: other words, extra bytes or parent.
  case collision
  case parentMissing
  /// The key leads to a row whose checksum fails: remove it (`.corrupt`), then publish again.
  case corruptRow(BlockPosition)
  /// The owner does not hold the slot any more, so it may be another's by now.
  case slotNotReserved
}
