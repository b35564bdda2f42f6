// Sends, in order, until each has its final answer: go-back-N.
//
// In: sends of the app, acks, errors, the end of a connection. Out: `Send` commands on the wire and what became of
// each. Always: a conversation's sends are written in their order, each naming in `after` the one before it that has no
// final answer at that moment; after anything but a final answer, everything from that send on is written again, in
// order, with the same ids. At most `pendingSendsMax` attempts of a connection are unanswered. Only `SendAck` and FINAL
// end a send.
import { create } from "@bufbuild/protobuf";
import { type Error as WireError, ErrorClass, ErrorCode, SendSchema } from "../gen/client_pb.js";
import { REPEAT, delayMs } from "./backoff.js";
import type { Refusal } from "./event.js";
import { Later } from "./later.js";
import type { RandomBytes } from "./random.js";
import type { Requests } from "./requests.js";
import type { Wire } from "./wire.js";

/** Until `SignedIn` names it. */
const PENDING_SENDS_FALLBACK = 32;

export const TOO_LARGE: Refusal = { code: ErrorCode.TOO_LARGE, detail: "larger than the server's frame limit" };

export interface QueuedSend {
  /** Rises in the order of sending, over reloads too. */
  readonly ticket: number;
  readonly conversation: string;
  /** Undefined when the send was addressed to the conversation. */
  readonly userId: string | undefined;
  readonly clientMessageId: string;
  readonly body: Uint8Array;
}

interface Attempt {
  readonly send: QueuedSend;
  /** Of the latest attempt. 0: not written, or given up. */
  requestId: number;
}

/** The sends of one conversation. */
interface Lane {
  readonly attempts: Attempt[];
  /** So many from the front are written and not given up. */
  written: number;
  failures: number;
  place: "resting" | "ready" | "held";
}

export class Outbox {
  readonly #lanes = new Map<string, Lane>();
  /** Lanes with something to write, each once. */
  #ready: string[] = [];
  /** Lanes that wait before they repeat. */
  readonly #held = new Later<string>();
  /** The server was BUSY: nothing is sent before. */
  #pausedUntilMs = 0;
  /**
   * Attempts of this connection without any answer; also those that were given up here, for the server counts them too.
   */
  #attemptsPending = 0;
  #attemptsMax = PENDING_SENDS_FALLBACK;
  #sends = 0;

  get sends(): number {
    return this.#sends;
  }

  add(send: QueuedSend): void {
    this.#sends += 1;
    const lane: Lane = this.#lanes.get(send.conversation) ?? {
      attempts: [],
      written: 0,
      failures: 0,
      place: "resting",
    };
    this.#lanes.set(send.conversation, lane);
    lane.attempts.push({ send, requestId: 0 });
    if (lane.place === "resting") {
      lane.place = "ready";
      this.#ready.push(send.conversation);
    }
  }

  /** The sends without a final answer, in their order. */
  list(): QueuedSend[] {
    const sends = [...this.#lanes.values()].flatMap((lane) => lane.attempts.map((attempt) => attempt.send));
    return sends.sort((a, b) => a.ticket - b.ticket);
  }

  find(conversation: string, clientMessageId: string): QueuedSend | undefined {
    return this.#lanes.get(conversation)?.attempts.find(({ send }) => send.clientMessageId === clientMessageId)?.send;
  }

  /** A new connection: everything is to be written again. */
  restart(): void {
    this.#pausedUntilMs = 0;
    this.#attemptsPending = 0;
    this.#held.clear();
    this.#ready = [...this.#lanes.keys()];
    for (const lane of this.#lanes.values()) {
      goBack(lane, 0);
      lane.failures = 0;
      lane.place = "ready";
    }
  }

  setPendingMax(pendingSendsMax: number): void {
    if (pendingSendsMax > 0) this.#attemptsMax = pendingSendsMax;
  }

  /** Writes what may be written now, one send per conversation in turn; returns those that are too large ever to be. */
  write(requests: Requests, wire: Wire, nowMs: number): QueuedSend[] {
    const tooLarge: QueuedSend[] = [];
    if (nowMs < this.#pausedUntilMs) return tooLarge;
    while (this.#attemptsPending < this.#attemptsMax) {
      const conversation = this.#ready.shift();
      if (conversation === undefined) break;
      const lane = this.#lanes.get(conversation);
      const attempt = lane?.attempts[lane.written];
      if (lane === undefined) continue;
      if (attempt !== undefined) {
        const requestId = writeAttempt(attempt, after(lane, requests), wire, nowMs);
        if (requestId === undefined) {
          tooLarge.push(attempt.send);
          this.#remove(conversation, lane, lane.written);
        } else {
          attempt.requestId = requestId;
          lane.written += 1;
          this.#attemptsPending += 1;
        }
      }
      if (lane.written < lane.attempts.length) {
        this.#ready.push(conversation);
      } else {
        lane.place = "resting";
        if (lane.attempts.length === 0) this.#lanes.delete(conversation);
      }
    }
    return tooLarge;
  }

  /** The send is stored, whichever attempt the ack answers. `undefined`: it was known already. */
  acked(conversation: string, clientMessageId: string): QueuedSend | undefined {
    this.#attemptsPending = Math.max(0, this.#attemptsPending - 1);
    const lane = this.#lanes.get(conversation);
    const index = lane?.attempts.findIndex(({ send }) => send.clientMessageId === clientMessageId) ?? -1;
    return lane === undefined || index < 0 ? undefined : this.#remove(conversation, lane, index);
  }

  /**
   * An error answered attempt `requestId`. Returns the send if that ended it. An error to an attempt that was given up
   * says nothing about the send.
   */
  failed(
    conversation: string,
    requestId: number,
    error: WireError,
    nowMs: number,
    random: RandomBytes,
  ): QueuedSend | undefined {
    this.#attemptsPending = Math.max(0, this.#attemptsPending - 1);
    const lane = this.#lanes.get(conversation);
    const index = lane?.attempts.findIndex((attempt) => attempt.requestId === requestId) ?? -1;
    if (lane === undefined || index < 0) return undefined;
    if (error.class === ErrorClass.FINAL) return this.#remove(conversation, lane, index);
    const delay = delayMs(REPEAT, lane.failures, error.retryAfterMs, random);
    if (error.class === ErrorClass.BUSY) {
      this.#pausedUntilMs = Math.max(this.#pausedUntilMs, nowMs + error.retryAfterMs);
    }
    lane.failures += 1;
    goBack(lane, index);
    if (lane.place === "ready") this.#ready = this.#ready.filter((ready) => ready !== conversation);
    // An earlier send of the lane failed too, while a later one already waits: the longer wait counts.
    const untilMs = Math.max(nowMs + delay, this.#held.untilMs(conversation) ?? 0);
    lane.place = "held";
    this.#held.set(conversation, untilMs);
    return undefined;
  }

  /** Lets go the lanes whose wait is over. */
  release(nowMs: number): void {
    for (const conversation of this.#held.take(nowMs)) {
      const lane = this.#lanes.get(conversation);
      if (lane === undefined) continue;
      lane.place = "ready";
      this.#ready.push(conversation);
    }
  }

  deadlineMs(nowMs: number): number | undefined {
    const held = this.#held.deadlineMs;
    if (this.#pausedUntilMs <= nowMs || this.#ready.length === 0) return held;
    return Math.min(this.#pausedUntilMs, held ?? this.#pausedUntilMs);
  }

  #remove(conversation: string, lane: Lane, index: number): QueuedSend | undefined {
    const [removed] = lane.attempts.splice(index, 1);
    if (removed === undefined) return undefined;
    this.#sends -= 1;
    lane.failures = 0;
    if (index < lane.written) lane.written -= 1;
    if (lane.attempts.length === 0 && lane.place === "resting") this.#lanes.delete(conversation);
    return removed.send;
  }
}

function writeAttempt({ send }: Attempt, after: string, wire: Wire, nowMs: number): number | undefined {
  const { conversation, clientMessageId, body, userId } = send;
  const to =
    userId === undefined
      ? { case: "conversationId" as const, value: conversation }
      : { case: "userId" as const, value: userId };
  const value = create(SendSchema, { to, clientMessageId, after, body });
  return wire.ask({ kind: "send", conversation, clientMessageId }, { case: "send", value }, nowMs);
}

/** The id of the command before the next send that has no final answer: a send, or a command to the group. */
function after(lane: Lane, requests: Requests): string {
  const next = lane.attempts[lane.written]?.send;
  if (next === undefined) return "";
  const send = lane.attempts[lane.written - 1]?.send;
  const request = requests.lastBefore(next.ticket, next.conversation);
  if (send !== undefined && (request === undefined || request.ticket < send.ticket)) return send.clientMessageId;
  return request?.commandId ?? "";
}

/** Gives up the attempts from `index` on. */
function goBack(lane: Lane, index: number): void {
  for (let at = index; at < lane.written; at++) lane.attempts[at]!.requestId = 0;
  lane.written = Math.min(lane.written, index);
}
