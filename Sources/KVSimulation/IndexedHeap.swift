/// A binary heap over dense numbers, whose keys may change; the smallest key comes first.
struct IndexedHeap<Key: Comparable> {
  private var order: [Int32] = []
  /// Where each number is in `order`; -1 = not there.
  private var positions: [Int32] = []
  private var keys: [Key] = []

  var count: Int { order.count }

  func contains(_ number: Int) -> Bool { number < positions.count && positions[number] >= 0 }

  /// Puts a number in, or gives it another key.
  mutating func set(_ number: Int, _ key: Key) {
    while positions.count <= number {
      positions.append(-1)
      keys.append(key)
    }
    keys[number] = key
    if positions[number] < 0 {
      positions[number] = Int32(order.count)
      order.append(Int32(number))
    }
    sink(raise(Int(positions[number])))
  }

  mutating func removeFirst() -> Int? {
    guard let first = order.first, let last = order.popLast() else { return nil }
    positions[Int(first)] = -1
    if !order.isEmpty {
      order[0] = last
      positions[Int(last)] = 0
      sink(0)
    }
    return Int(first)
  }

  private mutating func raise(_ start: Int) -> Int {
    var index = start
    let number = order[index]
    while index > 0 {
      let parent = (index - 1) / 2
      guard keys[Int(number)] < keys[Int(order[parent])] else { break }
      order[index] = order[parent]
      positions[Int(order[index])] = Int32(index)
      index = parent
    }
    order[index] = number
    positions[Int(number)] = Int32(index)
    return index
  }

  private mutating func sink(_ start: Int) {
    var index = start
    let number = order[index]
    while true {
      var child = 2 * index + 1
      guard child < order.count else { break }
      if child + 1 < order.count, keys[Int(order[child + 1])] < keys[Int(order[child])] {
        child += 1
      }
      guard keys[Int(order[child])] < keys[Int(number)] else { break }
      order[index] = order[child]
      positions[Int(order[index])] = Int32(index)
      index = child
    }
    order[index] = number
    positions[Int(number)] = Int32(index)
  }
}
