import ArgumentParser
import KVStore

/// `--eviction-policy`.
enum EvictionPolicyArgument: String, ExpressibleByArgument, CaseIterable {
  case density, lru

  var policy: EvictionPolicy {
    switch self {
    case .density: .density
    case .lru: .lru
    }
  }
}
