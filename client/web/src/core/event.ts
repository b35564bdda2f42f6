// What the core tells, in order.
//
// In: nothing. Out: types. Always: every accepted command gets one event that carries its ticket; entries of a
// conversation come in the order of their seq, each once.
import type { ClientState, Conversation, Sent } from "../events.js";
import type { CommandAck, Entry, ErrorCode, Kicked_Reason, Members, Pulled, ReadMarked } from "../gen/client_pb.js";

/** A final error: the same again will not help. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly detail: string;
}

/** The answer to a command other than a send. `unknown`: one this client does not know; the command has ended. */
export type Answer =
  | { readonly case: "commandAck"; readonly value: CommandAck }
  | { readonly case: "readMarked"; readonly value: ReadMarked }
  | { readonly case: "members"; readonly value: Members }
  | { readonly case: "pulled"; readonly value: Pulled }
  | { readonly case: "unknown"; readonly value: undefined };

export type CoreEvent =
  | { readonly kind: "state"; readonly state: ClientState }
  | { readonly kind: "acked"; readonly ticket: number; readonly sent: Sent }
  | {
      readonly kind: "refused";
      readonly ticket: number;
      readonly conversation: string;
      readonly clientMessageId: string;
      readonly refusal: Refusal;
    }
  | { readonly kind: "answered"; readonly ticket: number; readonly answer: Answer }
  | { readonly kind: "request-refused"; readonly ticket: number; readonly refusal: Refusal }
  | { readonly kind: "entry"; readonly conversation: string; readonly entry: Entry }
  | { readonly kind: "conversation"; readonly conversation: Conversation }
  | { readonly kind: "receipt"; readonly conversation: string; readonly userId: string; readonly readSeq: bigint }
  | { readonly kind: "unreadable"; readonly conversation: string; readonly refusal: Refusal }
  | { readonly kind: "sync-refused"; readonly refusal: Refusal }
  | { readonly kind: "kicked"; readonly reason: Kicked_Reason; readonly generation: bigint }
  | { readonly kind: "reset" }
  | { readonly kind: "synced" };
