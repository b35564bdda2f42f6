// The one entry of the package.
//
// In: nothing. Out: everything an app may name. Always: importing it runs nothing.
export type { Body, Client, ConnectOptions, MemberList, Recipient, TokenSource, WebSocketLike } from "./api.js";
export type { ClientEvents, ClientState, Conversation, PendingSend, Sent, StateName } from "./events.js";
export { connect } from "./client.js";
export { encodeBody, messageBody } from "./body.js";
export { directConversationId } from "./ids.js";
export { indexedDbStorage } from "./indexeddb.js";
export {
  ClosedError,
  FullError,
  RefusedError,
  StorageLostError,
  UnknownAnswerError,
  UserUnknownError,
} from "./errors.js";
export type {
  Storage,
  StorageChanges,
  StoredConversation,
  StoredDevice,
  StoredEntry,
  StoredSend,
  StoredState,
} from "./storage.js";
export { memoryStorage } from "./storage.js";
export { CloseCode, ErrorCode, Kicked_Reason } from "./gen/client_pb.js";
export type { CommandAck, Entry, Member, MessageBody, Pulled, ReadMarked } from "./gen/client_pb.js";
