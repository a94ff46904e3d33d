internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVStore
internal import KVTiers

/// The archive's slot files, whose slots have sizes of their own that each slot's header says.
extension StoreRepair {
  /// Longer than the store makes them: a file may say that it goes on for ever.
  private static let archiveFileBytesMax = 16 << 30

  mutating func readArchiveFiles(
    _ tier: DiskTier,
    _ progress: (MaintenanceProgress) -> Void
  ) throws(FileError) {
    guard let directory = archive.files else { return }
    let names = try directory.list(".").sorted()
    let headerByteCount =
      namespaces.values.map { Int($0.row.headerByteCount) }.max() ?? 4096
    guard let buffer = try? AlignedBuffer(byteCount: max(4096, headerByteCount)) else { return }
    for (index, name) in names.enumerated() {
      guard name.hasSuffix(".kvs"), name.utf8.count == 14, name.hasPrefix("03"),
        let number = UInt32(name.dropFirst(2).dropLast(4), radix: 16)
      else { continue }
      let file = try directory.openFile(name, mode: .readOnly, direct: false)
      let byteCount = Int(clamping: try file.byteCount())
      file.close()
      var slotByteCount = 0
      var found: [RepairCandidate] = []
      var offset = 0
      // Page by page up to the first header that says how long the slots are, from there slot by slot.
      while offset <= byteCount - 4096, offset < Self.archiveFileBytesMax {
        defer {
          let step = max(slotByteCount, 4096)
          offset = (offset / step + 1) * step
        }
        let wanted = min(headerByteCount, byteCount - offset)
        let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[0..<wanted])
        let page = unsafe ReadRequest(
          address: SlotAddress(tier: .archive, file: number, slot: UInt32(offset / 4096)),
          slotByteCount: 4096,
          offset: 0,
          buffer: bytes
        )
        guard tier.startReads([page]).wait(0) == nil,
          let header = unsafe SlotHeaderView(UnsafeRawBufferPointer(bytes)),
          header.tier == .archive
        else { continue }
        let size = Int(header.slotByteCount)
        guard ArchiveSlotSize.isClass(size), offset % size == 0,
          slotByteCount == 0 || slotByteCount == size
        else { continue }
        let address = SlotAddress(tier: .archive, file: number, slot: UInt32(offset / size))
        guard let candidate = candidate(header, .slot(address)) else { continue }
        slotByteCount = size
        found.append(candidate)
      }
      progress(
        MaintenanceProgress(
          activity: "reading archive headers",
          doneCount: index,
          totalCount: names.count
        )
      )
      guard slotByteCount > 0 else {
        unusableSlotFiles.append(name)
        continue
      }
      archiveSlotSizes[number] = slotByteCount
      result.slotCount += slotCount(byteCount, slotByteCount)
      slotFiles.append(
        SlotFileRow(
          tier: .archive,
          file: number,
          slotByteCount: UInt32(slotByteCount),
          slotCount: UInt32(slotCount(byteCount, slotByteCount))
        )
      )
      for candidate in found { add(candidate) }
    }
  }
}
