// One connection's frames: out with request ids, and which request ids still wait.
//
// In: commands. Out: messages to be written, and what an answer was asked for. Always: a request id is used once per
// connection; what was asked on one connection is forgotten with it. Ids count up, so the first without an answer is
// the first to time out. What waits is bounded by what is asked within REQUEST_TIMEOUT_MS.
import { create, toBinary } from "@bufbuild/protobuf";
import { type ClientFrame, ClientFrameSchema } from "../gen/client_pb.js";
import { HEARTBEAT, delimited } from "./frames.js";

/** Contract C5 on the client's side. The server promises the same. */
export const REQUEST_TIMEOUT_MS = 10_000;

/** Of a client frame before `SignedIn` names the limit; proto/README.md. */
const SIGN_IN_FRAME_BYTES_MAX = 8 * 1024;

/** Frames are merged into one message up to here. */
const MESSAGE_BYTES_MAX = 16 * 1024;

export type Command = ClientFrame["command"];

/** What a request was for. */
export type Asked =
  | { readonly kind: "sign-in" }
  | { readonly kind: "send" | "to-group"; readonly conversation: string; readonly id: string }
  | { readonly kind: "request"; readonly ticket: number }
  | { readonly kind: "pull"; readonly log: string }
  /** The number of the attempt: an answer to one that was given up is of a sync that is void. */
  | { readonly kind: "sync"; readonly attempt: number };

interface Unanswered {
  readonly asked: Asked;
  readonly deadlineMs: number;
}

export class Wire {
  #output: Uint8Array[] = [];
  #frameBytesMax = SIGN_IN_FRAME_BYTES_MAX;
  #nextId = 1;
  /** In the order of asking. */
  readonly #unanswered = new Map<number, Unanswered>();

  /** A new connection: nothing written, nothing asked. */
  restart(): void {
    this.#output = [];
    this.#frameBytesMax = SIGN_IN_FRAME_BYTES_MAX;
    this.#nextId = 1;
    this.#unanswered.clear();
  }

  setFrameBytesMax(bytes: number): void {
    this.#frameBytesMax = bytes;
  }

  /** Writes a command and returns its request id. `undefined`: larger than the server takes; nothing was written. */
  ask(asked: Asked, command: Command, nowMs: number): number | undefined {
    const requestId = this.#nextId;
    const frame = toBinary(ClientFrameSchema, create(ClientFrameSchema, { requestId: BigInt(requestId), command }));
    if (frame.length > this.#frameBytesMax) return undefined;
    this.#nextId += 1;
    this.#output.push(delimited(frame));
    this.#unanswered.set(requestId, { asked, deadlineMs: nowMs + REQUEST_TIMEOUT_MS });
    return requestId;
  }

  heartbeat(): void {
    this.#output.push(HEARTBEAT);
  }

  /** Takes what is to be written now: messages of whole frames. */
  takeMessages(): Uint8Array<ArrayBuffer>[] {
    const messages: Uint8Array<ArrayBuffer>[] = [];
    let gathered: Uint8Array[] = [];
    let bytes = 0;
    for (const frame of this.#output) {
      if (bytes > 0 && bytes + frame.length > MESSAGE_BYTES_MAX) {
        messages.push(joined(gathered, bytes));
        gathered = [];
        bytes = 0;
      }
      gathered.push(frame);
      bytes += frame.length;
    }
    if (bytes > 0) messages.push(joined(gathered, bytes));
    this.#output = [];
    return messages;
  }

  /** What the answer with this id is for. `undefined`: it came too late, or nobody asked. */
  answered(requestId: bigint): Asked | undefined {
    const id = Number(requestId);
    const asked = this.#unanswered.get(id)?.asked;
    this.#unanswered.delete(id);
    return asked;
  }

  /** The next request whose time is over, and its id. */
  timedOut(nowMs: number): [requestId: number, asked: Asked] | undefined {
    for (const [requestId, { asked, deadlineMs }] of this.#unanswered) {
      if (deadlineMs > nowMs) return undefined;
      this.#unanswered.delete(requestId);
      return [requestId, asked];
    }
    return undefined;
  }

  get deadlineMs(): number | undefined {
    for (const { deadlineMs } of this.#unanswered.values()) return deadlineMs;
    return undefined;
  }
}

function joined(frames: readonly Uint8Array[], bytes: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes);
  let at = 0;
  for (const frame of frames) {
    out.set(frame, at);
    at += frame.length;
  }
  return out;
}
