/// A binary heap; the smallest element comes first.
///
/// Public, since only then it is specialized in other modules, where it is several times as fast.
public struct MinHeap<Element: Comparable> {
  /// In no order but that the first is the smallest.
  public var elements: [Element] = []

  /// An empty heap.
  @inlinable public init() {}

  /// The smallest element.
  @inlinable public var first: Element? { elements.first }
  /// Number of elements.
  @inlinable public var count: Int { elements.count }

  /// Adds an element.
  @inlinable public mutating func insert(_ element: Element) {
    elements.append(element)
    var index = elements.count - 1
    while index > 0 {
      let parent = (index - 1) / 2
      guard element < elements[parent] else { break }
      elements[index] = elements[parent]
      index = parent
    }
    elements[index] = element
  }

  /// Takes the smallest element out.
  @inlinable public mutating func removeFirst() -> Element? {
    guard let first = elements.first, let last = elements.popLast() else { return nil }
    if !elements.isEmpty { sink(last) }
    return first
  }

  /// Drops the elements that `isStale`.
  @inlinable public mutating func compact(_ isStale: (Element) -> Bool) {
    elements.removeAll(where: isStale)
    // A sorted array is a heap.
    elements.sort()
  }

  @inlinable mutating func sink(_ element: Element) {
    var index = 0
    while true {
      var child = 2 * index + 1
      guard child < elements.count else { break }
      if child + 1 < elements.count, elements[child + 1] < elements[child] { child += 1 }
      guard elements[child] < element else { break }
      elements[index] = elements[child]
      index = child
    }
    elements[index] = element
  }
}
