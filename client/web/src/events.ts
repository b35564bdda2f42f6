// What the app hears.
//
// In: nothing. Out: the types of the events. Always: entries of a conversation come in the order of their seq, each
// once, without a hole; this device's own sends are among them, once they are acked.
import type { Entry, ErrorCode, Kicked_Reason } from "./gen/client_pb.js";

/** Where the connection stands. `live`: everything that had moved while away was handed over. */
export type StateName = "connecting" | "signing-in" | "syncing" | "live" | "waiting" | "closed";

export interface ClientState {
  readonly name: StateName;
  /**
   * Why the last connection ended, where a code tells: a `CloseCode` (4000–4999) or a close code of WebSocket itself.
   * `closed` with a code stays closed until the app has mended the cause and calls `reconnect()`.
   */
  readonly code?: number;
  /** `waiting`: when the next attempt is due. */
  readonly retryInMs?: number;
}

/** A conversation as this user sees it. */
export interface Conversation {
  readonly conversation: string;
  readonly kind: "direct" | "group";
  /** Direct conversations: the other user (oneself in a conversation with oneself). */
  readonly peerUserId: string;
  /** Groups; empty until the server has told it. */
  readonly groupName: string;
  /** False: this user left or was removed. */
  readonly member: boolean;
  /** The last entry handed to the app, or known to exist. */
  readonly headSeq: bigint;
  /** Below it nothing is kept for this reader. */
  readonly floorSeq: bigint;
  /** How far this user read, on any device. */
  readonly readSeq: bigint;
  /** Direct conversations: how far the other user read. */
  readonly peerReadSeq: bigint;
  /** Messages this user has not read. */
  readonly unread: number;
}

/** A send that is durable. */
export interface Sent {
  readonly conversation: string;
  readonly clientMessageId: string;
  readonly epoch: bigint;
  readonly seq: bigint;
  readonly serverTimeMs: bigint;
}

/** A send without a final answer. It is repeated, with the same id, until there is one. */
export interface PendingSend {
  readonly conversation: string;
  readonly clientMessageId: string;
  /** An encoded `MessageBody`. */
  readonly body: Uint8Array;
}

export interface ClientEvents {
  state: ClientState;
  /** The next entry of a conversation. `messageBody(entry)` reads what people said. */
  entry: { readonly conversation: string; readonly entry: Entry };
  /** A conversation is new, or something of it moved; at the start, each that the storage holds. */
  conversation: Conversation;
  /** Somebody else read a conversation up to `readSeq`. */
  receipt: { readonly conversation: string; readonly userId: string; readonly readSeq: bigint };
  /** A send is durable; also one of an earlier page load, that no promise waits for. */
  sent: Sent;
  /** A send is not stored and never will be. */
  refused: {
    readonly conversation: string;
    readonly clientMessageId: string;
    readonly code: ErrorCode;
    readonly detail: string;
  };
  /** The server refuses to show what lies behind the cursor of a conversation. */
  unreadable: { readonly conversation: string; readonly code: ErrorCode };
  /** This login has ended. `state` follows. */
  kicked: { readonly reason: Kicked_Reason; readonly generation: bigint };
  /** The history of the store was replaced: forget every entry and conversation shown. They come again. */
  reset: Record<never, never>;
  /** Everything that had moved when sync was asked has been handed over. */
  synced: Record<never, never>;
  /**
   * The token callback, the storage, making a socket, a sync, or a handler of the app failed. The client goes on. A storage
   * is told of once, until it takes something again; a sync that the server refuses for good once a connection.
   */
  error: { readonly during: "token" | "storage" | "connect" | "sync" | "handler"; readonly error: unknown };
}
