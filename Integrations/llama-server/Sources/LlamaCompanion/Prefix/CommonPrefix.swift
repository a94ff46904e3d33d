/// How many leading elements two token lists share.
func commonPrefix(_ a: ArraySlice<Int32>, _ b: ArraySlice<Int32>) -> Int {
  let count = min(a.count, b.count)
  return a.withUnsafeBufferPointer { a in
    b.withUnsafeBufferPointer { b in
      var index = 0
      while index < count, a[index] == b[index] { index += 1 }
      return index
    }
  }
}
