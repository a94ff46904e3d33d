import KVCore
import KVStore
import LlamaSlots

/// One start of a server, and what was learnt about it: who it is, and what its slot files look like.
struct Attachment: Sendable {
  /// Its answer to `/props`: changes with every start, since a random mark is in it.
  var properties: [UInt8]
  var adapters: [UInt8]
  var model: FileStamp
  var slotCount: Int
  var layout: SlotLayout
  var identity: NamespaceIdentity
  var windowTokenCount: Int
  /// The server keeps more than the window (`--swa-full`) and believes that it has what no slot file holds: what was restored is gone on
  /// with at its end only.
  var hasFullWindow: Bool
  /// The server empties the slots that are idle when another one starts, as it does by default where all share one buffer.
  var clearsIdleSlots: Bool
  /// The server can go back to the end of a prompt whose answer it has computed.
  var hasCheckpoints: Bool
  var buildInfo: String
  var modelName: String
}
