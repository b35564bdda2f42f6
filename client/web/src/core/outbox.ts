// Commands that write conversations, in order, until each has its final answer: go-back-N.
//
// In: sends and group commands of the app, acks, errors, the end of a connection. Out: commands on the wire and what
// became of each. Always: what the app asks of one conversation is written in that order, each command naming in `after`
// the one before it that has no final answer at that moment: one chain, with no command left out of it. After anything
// but a final answer, everything from that command on is written again, in order, with the same ids. At most
// `pendingSendsMax` attempts of a connection are unanswered. Only an ack and FINAL end a command.
import { type Error as WireError, ErrorClass, ErrorCode } from "../gen/client_pb.js";
import { REPEAT, delayMs } from "./backoff.js";
import type { Refusal } from "./event.js";
import { Later } from "./later.js";
import type { RandomBytes } from "./random.js";
import type { Wire } from "./wire.js";
import { type QueuedSend, type QueuedWrite, askedBy, commandOf, idOf, isSend } from "./write.js";

/** Until `SignedIn` names it. */
const PENDING_SENDS_FALLBACK = 32;

export const TOO_LARGE: Refusal = { code: ErrorCode.TOO_LARGE, detail: "larger than the server's frame limit" };

interface Attempt {
  readonly write: QueuedWrite;
  /** Of the latest attempt. 0: not written, or given up. */
  requestId: number;
}

/** The commands of one conversation. */
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
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(write: QueuedWrite): void {
    this.#count += 1;
    const lane: Lane = this.#lanes.get(write.conversation) ?? {
      attempts: [],
      written: 0,
      failures: 0,
      place: "resting",
    };
    this.#lanes.set(write.conversation, lane);
    lane.attempts.push({ write, requestId: 0 });
    if (lane.place === "resting") {
      lane.place = "ready";
      this.#ready.push(write.conversation);
    }
  }

  /** The sends without a final answer, in their order. */
  list(): QueuedSend[] {
    const writes = [...this.#lanes.values()].flatMap((lane) => lane.attempts.map((attempt) => attempt.write));
    return writes.filter(isSend).sort((a, b) => a.ticket - b.ticket);
  }

  find(conversation: string, clientMessageId: string): QueuedSend | undefined {
    const writes = this.#lanes.get(conversation)?.attempts.map((attempt) => attempt.write) ?? [];
    return writes.filter(isSend).find((send) => send.clientMessageId === clientMessageId);
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

  /** Writes what may be written now, one command per conversation in turn; returns those that are too large ever to be. */
  write(wire: Wire, nowMs: number): QueuedWrite[] {
    const tooLarge: QueuedWrite[] = [];
    if (nowMs < this.#pausedUntilMs) return tooLarge;
    while (this.#attemptsPending < this.#attemptsMax) {
      const conversation = this.#ready.shift();
      if (conversation === undefined) break;
      const lane = this.#lanes.get(conversation);
      const attempt = lane?.attempts[lane.written];
      if (lane === undefined) continue;
      if (attempt !== undefined) {
        const requestId = wire.ask(askedBy(attempt.write), commandOf(attempt.write, after(lane)), nowMs);
        if (requestId === undefined) {
          tooLarge.push(attempt.write);
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

  /** The command is stored, whichever attempt the ack answers. `undefined`: it was known already. */
  acked(conversation: string, id: string): QueuedWrite | undefined {
    this.#attemptsPending = Math.max(0, this.#attemptsPending - 1);
    const lane = this.#lanes.get(conversation);
    const index = lane?.attempts.findIndex(({ write }) => idOf(write) === id) ?? -1;
    return lane === undefined || index < 0 ? undefined : this.#remove(conversation, lane, index);
  }

  /**
   * An error answered attempt `requestId`. Returns the command if that ended it. An error to an attempt that was
   * given up says nothing about the command.
   */
  failed(
    conversation: string,
    requestId: number,
    error: WireError,
    nowMs: number,
    random: RandomBytes,
  ): QueuedWrite | undefined {
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
    // An earlier command of the lane failed too, while a later one already waits: the longer wait counts.
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

  #remove(conversation: string, lane: Lane, index: number): QueuedWrite | undefined {
    const [removed] = lane.attempts.splice(index, 1);
    if (removed === undefined) return undefined;
    this.#count -= 1;
    lane.failures = 0;
    if (index < lane.written) lane.written -= 1;
    if (lane.attempts.length === 0 && lane.place === "resting") this.#lanes.delete(conversation);
    return removed.write;
  }
}

/** The id of the command before the next one, if that has no final answer. */
function after(lane: Lane): string {
  const before = lane.attempts[lane.written - 1]?.write;
  return before === undefined ? "" : idOf(before);
}

/** Gives up the attempts from `index` on. */
function goBack(lane: Lane, index: number): void {
  for (let at = index; at < lane.written; at++) lane.attempts[at]!.requestId = 0;
  lane.written = Math.min(lane.written, index);
}
