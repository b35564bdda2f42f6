// Commands that write no conversation: each is repeated with the same id until its final answer, in no order.
//
// In: commands of the app, answers, errors, the end of a connection. Out: commands on the wire. Always: a command is
// written again unchanged, so the server can tell a repetition; the core bounds how many wait.
import { REPEAT, delayMs } from "./backoff.js";
import { Later } from "./later.js";
import type { RandomBytes } from "./random.js";
import type { Command, Wire } from "./wire.js";

interface Request {
  readonly command: Command;
  failures: number;
}

export class Requests {
  /** By ticket, in the order they were asked. */
  readonly #waiting = new Map<number, Request>();
  #unwritten: number[] = [];
  readonly #later = new Later<number>();

  get count(): number {
    return this.#waiting.size;
  }

  add(ticket: number, command: Command): void {
    this.#waiting.set(ticket, { command, failures: 0 });
    this.#unwritten.push(ticket);
  }

  /** A new connection: everything is written again, in the order it was asked. */
  restart(): void {
    this.#later.clear();
    this.#unwritten = [...this.#waiting.keys()];
  }

  /** Returns the tickets of those that are too large ever to be written. */
  write(epoch: bigint, wire: Wire, nowMs: number): number[] {
    const tooLarge: number[] = [];
    for (const ticket of this.#unwritten.splice(0)) {
      const request = this.#waiting.get(ticket);
      if (request === undefined) continue;
      nameEpoch(request.command, epoch);
      if (wire.ask({ kind: "request", ticket }, request.command, nowMs) === undefined) {
        this.#waiting.delete(ticket);
        tooLarge.push(ticket);
      }
    }
    return tooLarge;
  }

  /** A final answer came. False: it was known already. */
  done(ticket: number): boolean {
    return this.#waiting.delete(ticket);
  }

  /** No final answer. */
  failed(ticket: number, retryAfterMs: number, nowMs: number, random: RandomBytes): void {
    const request = this.#waiting.get(ticket);
    if (request === undefined) return;
    this.#later.set(ticket, nowMs + delayMs(REPEAT, request.failures, retryAfterMs, random));
    request.failures += 1;
  }

  release(nowMs: number): void {
    this.#unwritten.push(...this.#later.take(nowMs));
  }

  get deadlineMs(): number | undefined {
    return this.#later.deadlineMs;
  }
}

/** A cursor belongs to the epoch it was made in: the one known when the command is first written. */
function nameEpoch(command: Command, epoch: bigint): void {
  if ((command.case === "markRead" || command.case === "pull") && command.value.epoch === 0n)
    command.value.epoch = epoch;
}
