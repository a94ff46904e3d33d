package import KVCore

/// Slots that an owner holds reserved and has not published.
package struct ReservationRow: Sendable, Equatable {
  package var owner: OwnerID
  package var slots: [SlotAddress]
}
