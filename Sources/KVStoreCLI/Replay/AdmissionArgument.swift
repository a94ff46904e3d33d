import ArgumentParser
internal import KVCore

/// `--admission`: which new blocks come in.
enum AdmissionArgument: String, CaseIterable, ExpressibleByArgument {
  case always, adaptive
  case secondTouch = "second-touch"

  var policy: AdmissionPolicy {
    switch self {
    case .always: .always
    case .secondTouch: .secondTouch
    case .adaptive: .adaptive
    }
  }
}
