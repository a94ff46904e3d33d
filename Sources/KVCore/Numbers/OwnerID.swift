/// Number of a process that has the store open, given anew at each open.
package struct OwnerID: Hashable, Sendable, RawRepresentable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
}
