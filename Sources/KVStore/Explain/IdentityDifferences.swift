internal import KVCore

extension NamespaceIdentity {
  /// The fields in which `there` is another one.
  func differences(
    from there: NamespaceIdentity,
    saltsDiffer: Bool
  ) -> [Explanation.FieldDifference] {
    var differences: [Explanation.FieldDifference] = []
    for (mine, other) in zip(fields, there.fields) where mine.value != other.value {
      differences.append(
        Explanation.FieldDifference(field: mine.name, here: mine.value, there: other.value)
      )
    }
    let regions = "region byte counts"
    if regionByteCounts != there.regionByteCounts,
      !differences.contains(where: { $0.field == regions })
    {
      differences.append(
        Explanation.FieldDifference(
          field: regions,
          here: "another division",
          there: "another division"
        )
      )
    }
    if saltsDiffer {
      differences.append(
        Explanation.FieldDifference(field: "salt", here: "another one", there: "another one")
      )
    }
    return differences
  }
}
