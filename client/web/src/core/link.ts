// The life of the link: fetch a token, dial, sign in, wait, dial again, or stay away.
//
// In: what the transport reports, close codes, the app's wishes. Out: requests to the transport and when the next
// attempt is due. Always: after a code that does not reconnect nothing is dialled until the app has mended the cause;
// an expired token is never used again; no wish of the app or the browser undercuts the delay the server named.
import { CloseCode, Kicked_Reason } from "../gen/client_pb.js";
import { RECONNECT, delayMs } from "./backoff.js";
import type { RandomBytes } from "./random.js";

/** What the transport has to do. After `close` nothing of the old socket may be fed to the core any more. */
export type LinkAction = "close" | "connect" | "fetch-token";

/** Opening the socket may take this long. */
const DIAL_TIMEOUT_MS = 10_000;

/** Fetching a token may take this long. */
export const TOKEN_TIMEOUT_MS = 30_000;

/** Codes from here on do not reconnect. */
const FINAL_CLOSE_CODES = 4500;

/** Violations of WebSocket itself, told by the server: the same again will be refused again. */
const FINAL_WEBSOCKET_CODES: readonly number[] = [1002, 1003, 1007, 1009, 1010];

export type Phase =
  | { readonly name: "stopped" }
  | { readonly name: "waiting"; readonly untilMs: number; readonly notBeforeMs: number }
  | { readonly name: "fetching-token"; readonly deadlineMs: number }
  | { readonly name: "dialing"; readonly deadlineMs: number }
  | { readonly name: "signing-in" }
  | { readonly name: "up" };

/** Why a link ended. `token`: it could not be fetched. */
export type Cause =
  | { readonly kind: "closed"; readonly code: number }
  | { readonly kind: "lost" | "silent" | "bad-frame" | "wrong-user" | "token" | "asked" };

/** What the end of a WebSocket says. Its own codes for a plain end mean no more than a lost link. */
export function causeOfClose(code: number | undefined): Cause {
  const tells = code !== undefined && ((code >= 4000 && code <= 4999) || FINAL_WEBSOCKET_CODES.includes(code));
  return tells ? { kind: "closed", code } : { kind: "lost" };
}

export class Link {
  phase: Phase = { name: "stopped" };
  /** Of the last link that ended, where a code tells why. */
  endedWith: number | undefined;
  /** Since the client started. */
  dials = 0;
  /** Links in a row that ended before they were of use. */
  #failures = 0;
  /** The token was fetched for this link, and no link has been of use with it. */
  #isTokenUntried = false;
  /** What a `Kicked` announced, for a link that ends without `Closing`. */
  #kicked: CloseCode | undefined;
  #actions: LinkAction[] = [];

  get isOpen(): boolean {
    return this.phase.name === "signing-in" || this.phase.name === "up";
  }

  dial(hasToken: boolean, nowMs: number): void {
    if (hasToken) {
      this.#isTokenUntried = this.phase.name === "fetching-token";
      this.phase = { name: "dialing", deadlineMs: nowMs + DIAL_TIMEOUT_MS };
      this.#actions.push("connect");
      this.dials += 1;
    } else {
      this.phase = { name: "fetching-token", deadlineMs: nowMs + TOKEN_TIMEOUT_MS };
      this.#actions.push("fetch-token");
    }
  }

  /** The network may be back: no reason to wait longer than the server asked for. */
  hurry(): void {
    if (this.phase.name === "waiting") this.phase = { ...this.phase, untilMs: this.phase.notBeforeMs };
  }

  pollAction(): LinkAction | undefined {
    return this.#actions.shift();
  }

  /** The link was of use: the next failure is the first again. */
  proved(): void {
    this.#failures = 0;
    this.#isTokenUntried = false;
    this.endedWith = undefined;
  }

  kicked(reason: Kicked_Reason): void {
    if (reason === Kicked_Reason.REPLACED) this.#kicked = CloseCode.REPLACED_BY_NEWER;
    else if (reason === Kicked_Reason.BANNED) this.#kicked = CloseCode.USER_BANNED;
    // Also a reason this client does not know.
    else this.#kicked = CloseCode.SIGNED_OUT_REMOTELY;
  }

  /** Ends the link and decides what comes next. `renewsToken`: a fresh token can be fetched. */
  end(cause: Cause, atLeastMs: number, renewsToken: boolean, nowMs: number, random: RandomBytes): void {
    const kicked = this.#kicked;
    this.#kicked = undefined;
    const told = cause.kind === "lost" && kicked !== undefined ? { kind: "closed" as const, code: kicked } : cause;
    this.endedWith = told.kind === "closed" ? told.code : undefined;
    if (told.kind === "wrong-user") this.endedWith = CloseCode.BAD_TOKEN;
    this.#actions = ["close"];
    if (staysAway(told, renewsToken)) {
      this.phase = { name: "stopped" };
      this.#failures = 0;
      return;
    }
    const isExpired = told.kind === "closed" && told.code === CloseCode.TOKEN_EXPIRED;
    // A token that has expired in use, or while there was no link, is replaced at once; one fresh token after another is not.
    const isAtOnce = isExpired && (this.#failures === 0 || !this.#isTokenUntried);
    const delay = isAtOnce ? atLeastMs : delayMs(RECONNECT, this.#failures, atLeastMs, random);
    this.#failures += 1;
    this.phase = { name: "waiting", untilMs: nowMs + delay, notBeforeMs: nowMs + atLeastMs };
  }

  get deadlineMs(): number | undefined {
    switch (this.phase.name) {
      case "waiting":
        return this.phase.untilMs;
      case "dialing":
      case "fetching-token":
        return this.phase.deadlineMs;
      default:
        return undefined;
    }
  }
}

function staysAway(cause: Cause, renewsToken: boolean): boolean {
  if (cause.kind === "wrong-user" || cause.kind === "asked") return true;
  if (cause.kind !== "closed") return false;
  if (cause.code === CloseCode.TOKEN_EXPIRED) return !renewsToken;
  return cause.code >= FINAL_CLOSE_CODES || cause.code < 4000;
}
