// The client as an app sees it.
//
// In: options. Out: the types of `connect` and of what it returns. Always: every call that returns a promise ends: with
// the final answer, or with an error of `errors.ts`; while there is no connection it waits for one.
import type { ClientEvents, ClientState, Conversation, PendingSend, Sent } from "./events.js";
import type { CommandAck, Entry, Member, Pulled, ReadMarked } from "./gen/client_pb.js";
import type { Storage } from "./storage.js";

/** A signed token as the app's backend gives it, or a way to fetch one. Only a callback can mend an expired token. */
export type TokenSource = string | (() => Promise<string> | string);

/** What this client needs of a WebSocket; the browser's own and the one of npm's `ws` have it. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
}

export interface ConnectOptions {
  /** "wss://host/ws", or "ws://" on loopback. */
  url: string;
  token: TokenSource;
  /**
   * The token's subject. When absent it is read from the token, and only if none can be fetched from the storage; so what
   * is stored shows at once, also without a network, where the app names it.
   */
  user?: string;
  /**
   * Names this device; a newer login of the same device ends the older one. When absent: the device claim of the token
   * signed in with, what the storage holds, or a new random one.
   */
  device?: string;
  /** Default "web". */
  platform?: string;
  /** Default: in memory, so a reload begins anew. See `indexedDbStorage`. */
  storage?: Storage;
  /** Where a device without a sync token begins in conversations that exist already. Default "all". */
  history?: "all" | "from-now";
  /** Sends and group commands without a final answer; one more is refused with `FullError`. Default 1,000. */
  outboxSendsMax?: number;
  /** Other requests without an answer; one more is refused with `FullError`. Default 1,000. */
  requestsMax?: number;
  /** Default: `globalThis.WebSocket`. Node 20 has none: pass that of npm's `ws`. */
  webSocket?: new (url: string) => WebSocketLike;
}

/** Addresses a user (the direct conversation with them, oneself allowed) or a conversation. */
export type Recipient = { readonly user: string } | { readonly conversation: string };

/** A text, an encoded `MessageBody`, or its parts. */
export type Body =
  string | Uint8Array | { readonly text?: string; readonly contentType?: string; readonly data?: Uint8Array };

export interface MemberList {
  readonly members: readonly Member[];
  readonly creatorUserId: string;
  readonly membersSeq: bigint;
}

export interface Client {
  readonly state: ClientState;
  /** Empty until the token, which may have to be fetched, has told it; known from the first `state` event on. */
  readonly user: string;
  readonly device: string;

  /** Returns a function that ends the subscription. */
  on<Name extends keyof ClientEvents>(name: Name, handler: (event: ClientEvents[Name]) => void): () => void;

  /**
   * Resolves when the message is durable. It is repeated with the same id, over any number of connections, until the
   * server gives a final answer. Sends to one conversation are stored in the order of the calls.
   */
  send(to: Recipient, body: Body, options?: { clientMessageId?: string }): Promise<Sent>;
  /** Sends without a final answer, in order; after a reload those of the earlier page too. */
  pending(): PendingSend[];

  /** What is known of this user's conversations, in no order. */
  conversations(): Conversation[];
  conversation(conversation: string): Conversation | undefined;
  /** The id of the direct conversation with `user`. Throws `UserUnknownError` before this client's own user is known. */
  directConversation(user: string): string;

  /** Reads history from the server, oldest first; the cursors stay. `limit` 0 or absent: the server's maximum. */
  pull(conversation: string, fromSeq: bigint, limit?: number): Promise<Pulled>;
  /** Entries the storage kept, oldest first: the last ones, or those below `below`. */
  storedEntries(conversation: string, options?: { below?: bigint; limit?: number }): Promise<Entry[]>;
  /** Asks what moved, now. Resolves at the next `synced`. */
  sync(): Promise<void>;
  markRead(conversation: string, seq: bigint): Promise<ReadMarked>;

  /** `members`: the others; the creator is always one. */
  createGroup(group: { name: string; members: readonly string[] }): Promise<CommandAck>;
  addMembers(conversation: string, members: readonly string[]): Promise<CommandAck>;
  /** Removes one after the other; stops at the first refusal. */
  removeMembers(conversation: string, members: readonly string[]): Promise<CommandAck[]>;
  leaveGroup(conversation: string): Promise<CommandAck>;
  /** All members, by user id. */
  listMembers(conversation: string): Promise<MemberList>;

  /** Dials now instead of later (not before the time the server named), or again after `closed`. */
  reconnect(token?: TokenSource): void;
  /** Ends the connection for good. Waiting calls end with `ClosedError`. */
  close(): Promise<void>;
}
