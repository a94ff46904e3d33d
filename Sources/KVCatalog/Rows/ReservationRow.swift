package import KVCore

/// Slots that an owner holds reserved and has not published.
///
/// A row of an owner in `slots`: the bitmap of them (`SlotBitmap`).
package struct ReservationRow: Sendable, Equatable {
  package var owner: OwnerID
  package var slots: [SlotAddress]
}
