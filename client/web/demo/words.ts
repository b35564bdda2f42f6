// Codes, times and entries in words.
//
// In: values of the client. Out: short English text. Always: pure; an unknown code is told by its number.
import { CloseCode, ErrorCode, RefusedError, FullError, ClosedError, type ClientState, type Entry } from "@im-server/client";
import { textOf } from "./entries.js";

const REFUSALS: Partial<Record<ErrorCode, string>> = {
  [ErrorCode.INVALID_ARGUMENT]: "the server does not accept that",
  [ErrorCode.NOT_ALLOWED]: "that is not allowed, or does not exist",
  [ErrorCode.CONFLICT]: "the same id was used for something else",
  [ErrorCode.TOO_LARGE]: "that is too long",
  [ErrorCode.UNKNOWN_COMMAND]: "this server does not know the command",
};

export function refusalWords(code: ErrorCode): string {
  return REFUSALS[code] ?? `refused with code ${code}`;
}

export function errorWords(error: unknown): string {
  if (error instanceof RefusedError) return refusalWords(error.code);
  if (error instanceof FullError) return "too many messages wait already";
  if (error instanceof ClosedError) return "this tab is signed out";
  return error instanceof Error ? error.message : String(error);
}

/** The question was about a history that was replaced meanwhile: the event `reset` tells it. */
export function isReset(error: unknown): boolean {
  return error instanceof RefusedError && error.code === ErrorCode.RESET;
}

export type Tone = "good" | "wait" | "bad";

/** The state of the connection, and how it is meant. `retryInMs` counts down while waiting. */
export function stateWords(state: ClientState, retryInMs: number): { readonly words: string; readonly tone: Tone } {
  switch (state.name) {
    case "live":
      return { words: "live", tone: "good" };
    case "connecting":
    case "signing-in":
      return { words: "connecting…", tone: "wait" };
    case "syncing":
      return { words: "catching up…", tone: "wait" };
    case "waiting":
      return { words: `reconnecting in ${Math.max(1, Math.ceil(retryInMs / 1000))} s`, tone: "wait" };
    case "closed":
      return { words: closedWords(state.code), tone: "bad" };
  }
}

function closedWords(code: number | undefined): string {
  switch (code) {
    case CloseCode.REPLACED_BY_NEWER:
      return "signed in elsewhere";
    case CloseCode.SIGNED_OUT_REMOTELY:
      return "signed out";
    case CloseCode.USER_BANNED:
      return "banned";
    case CloseCode.BAD_TOKEN:
      return "token refused";
    case CloseCode.TOKEN_EXPIRED:
      return "token expired";
    case undefined:
      return "signed out";
    default:
      return `closed (${code})`;
  }
}

const NAMES_MAX = 12;

/** "bob", "bob and carol", "bob, carol and dave"; of many, the first. */
export function nameList(names: readonly string[]): string {
  if (names.length < 2) return names.join("");
  if (names.length > NAMES_MAX) return `${names.slice(0, NAMES_MAX).join(", ")} and ${names.length - NAMES_MAX} more`;
  return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** An entry that is no message, told as a sentence; undefined for what is not shown. */
export function eventWords(entry: Entry, me: string): string | undefined {
  const name = (user: string) => (user === me ? "you" : user);
  const who = entry.senderUserId === me ? "You" : entry.senderUserId;
  switch (entry.content.case) {
    case "groupCreated":
      return `${who} made the group “${entry.content.value.name}”`;
    case "membersAdded": {
      const added = entry.content.value.userIds;
      return added.length === 0 ? undefined : `${who} added ${nameList(added.map(name))}`;
    }
    case "memberRemoved":
      return `${who} removed ${name(entry.content.value.userId)}`;
    case "memberLeft":
      return `${who} left`;
    case "message":
    case "tombstone":
    case "readMoved":
    case undefined:
      return undefined;
    default:
      // The compiler asks for a new content; a page that is older than its server shows nothing of it.
      entry.content satisfies never;
      return undefined;
  }
}

/** The last thing that happened in a conversation, on one line. */
export function previewWords(entry: Entry, me: string, group: boolean): string {
  const text = textOf(entry);
  if (text === undefined) return eventWords(entry, me) ?? "";
  const line = text.replace(/\s+/g, " ").trim();
  if (entry.senderUserId === me) return `You: ${line}`;
  return group ? `${entry.senderUserId}: ${line}` : line;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const longDate = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

const DAY_MS = 86_400_000;

export function clockWords(timeMs: number): string {
  return clock.format(timeMs);
}

/** For the list: the time today, else the day. */
export function shortTimeWords(timeMs: number, nowMs: number): string {
  if (sameDay(timeMs, nowMs)) return clock.format(timeMs);
  return nowMs - timeMs < 6 * DAY_MS ? weekday.format(timeMs) : date.format(timeMs);
}

export function dayWords(timeMs: number, nowMs: number): string {
  if (sameDay(timeMs, nowMs)) return "Today";
  return sameDay(timeMs, nowMs - DAY_MS) ? "Yesterday" : longDate.format(timeMs);
}

export function sameDay(one: number, other: number): boolean {
  return new Date(one).toDateString() === new Date(other).toDateString();
}
