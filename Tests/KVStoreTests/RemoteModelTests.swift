import Foundation
import KVCore
import KVRemote
import KVStore
import KVTestSupport
import Testing

/// Two machines and a remote of all moods: random operations, against the simplest model of what may be found.
@Suite struct RemoteModelTests {
  private static let faults: [SimulatedRemote.Fault?] = [
    nil, nil, nil, .dead, .cut(3), .flipped(bit: 12_345), .lying, .full, .unauthorized,
    .unavailable, .forgetting, .late(200_000),
  ]

  /// Whatever is restored has the bytes of its tokens; what a machine stored itself it has; what neither stored is not found.
  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func noOperationBringsWrongBytes(seed: UInt64) throws {
    let machines = try RemoteFixture { configuration, index in
      configuration.remote.pauseNanoseconds = 1_000_000
      configuration.remote.lookUpTimeoutNanoseconds = 20_000_000
      configuration.remote.transferTimeoutNanoseconds = 50_000_000
      if seed % 2 == 0 { configuration.remote.key = RemoteFixture.key }
      // Many names that are the same.
      if seed == 3 { configuration.keyBitCount = 12 }
    }
    var random = SeededGenerator(seed: seed)
    let identities = [
      StoreFixture.identity([300, 100]),
      StoreFixture.identity([300, 100]) { $0.weightsDigest = [1] },
      StoreFixture.identity([20_000]) { if seed % 2 == 0 { $0.salt = [7] } },
    ]
    let namespaces = try machines.stores.map { fixture in
      try identities.map { try fixture.store.openNamespace($0) }
    }
    /// Of each machine and identity, what it stored itself.
    var own = [[Set<[UInt32]>]](
      repeating: [Set<[UInt32]>](repeating: [], count: identities.count),
      count: 2
    )
    /// Of each identity, what anybody ever stored: what one forgets the remote still has.
    var anybodys = [Set<[UInt32]>](repeating: [], count: identities.count)
    for step in 0..<2500 {
      let machine = Int.random(in: 0..<2, using: &random)
      let kind = Int.random(in: 0..<identities.count, using: &random)
      let namespace = namespaces[machine][kind]
      // A small tree, so that paths are met again.
      let blockCount = Int.random(in: 1...8, using: &random)
      let prompt = (0..<blockCount).flatMap { depth in
        let branch = UInt32.random(in: 0..<3, using: &random)
        return (0..<4).map { UInt32(depth * 100) + branch * 10 + $0 }
      }
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<35:
        let result = try namespace.offload(prompt, seed: UInt32(kind))
        for count in 1...max(1, result.doneBlockCount) where result.doneBlockCount > 0 {
          own[machine][kind].insert(Array(prompt.prefix(count * 4)))
          anybodys[kind].insert(Array(prompt.prefix(count * 4)))
        }
      case 35..<85:
        let local =
          (0...blockCount).last {
            $0 == 0 || own[machine][kind].contains(Array(prompt.prefix($0 * 4)))
          } ?? 0
        let result = try namespace.match(prompt, .remote)
        // Where keys collide, one of two paths is found.
        #expect(seed == 3 || result.blockCount >= local, "step \(step)")
        let restored = try namespace.restore(prompt, seed: UInt32(kind))
        #expect(restored.isRight, "step \(step)")
        let longest = Array(prompt.prefix(restored.result.doneBlockCount * 4))
        #expect(longest.isEmpty || anybodys[kind].contains(longest), "step \(step)")
        // What came is this machine's own.
        if !longest.isEmpty { own[machine][kind].insert(longest) }
      case 85..<90: machines.remote.fault = Self.faults.randomElement(using: &random) ?? nil
      case 90..<94:
        // Eviction, and somebody who writes.
        if let name = machines.remote.objects.keys.randomElement(using: &random) {
          if Bool.random(using: &random) {
            machines.remote.objects[name] = nil
          } else if !name.text.hasSuffix(":id") {
            let place = Int.random(in: 0..<1 << 20, using: &random)
            machines.remote.change(name) { $0[place % $0.count] ^= 1 << UInt8(place % 8) }
          }
        }
      case 94..<97:
        let count = try namespace.forget(prompt)
        if count > 0 {
          own[machine][kind] = own[machine][kind].filter { !$0.starts(with: prompt) }
        }
      default:
        try machines.stores[machine].store.flush()
        if machines.remote.fault == nil { machines.stores[machine].store.waitForRemote() }
      }
    }
    // After all that the one still finds what the other stores: the test is worth nothing when nothing ever comes. What is
    // sent or asked while one of them pauses, or later than the limits above on a busy machine, does not.
    machines.remote.fault = nil
    var first = 9000
    var foundCount = 0
    while foundCount < 4, first < 20_000 {
      usleep(20_000)
      first += 16
      let prompt = tokens(first..<first + 16)
      try machines.write(prompt, identities[0])
      foundCount = try machines.find(prompt, identities[0]).blockCount
    }
    #expect(foundCount == 4)
  }
}
