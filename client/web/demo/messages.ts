// The messages of the open chat as items of a list.
//
// In: the entries in memory, outgoing messages, how far everyone has read. Out: one item per day, message, event and the line
// "new". Always: pure of state of its own; an own message keeps its element from "sending" to "read"; each reader stands
// under the last message they read.
import type { Entry } from "@im-server/client";
import { textOf } from "./entries.js";
import { avatar, element, icon, spoken } from "./element.js";
import type { Item } from "./keyed.js";
import type { Outgoing } from "./outgoing.js";
import { clockWords, dayWords, eventWords, nameList, sameDay } from "./words.js";

/** Messages of one sender that follow each other within this span are shown as one group. */
const FOLLOWS_MS = 5 * 60_000;
/** Readers drawn under one message; all are told in words up to the bound of `nameList`. */
const FACES_MAX = 8;

export interface Shown {
  readonly me: string;
  readonly group: boolean;
  readonly entries: readonly Entry[];
  readonly outgoing: readonly Outgoing[];
  /** Everyone else, and how far they read. */
  readonly readers: ReadonlyMap<string, bigint>;
  /** Everyone else who should read: all members, or the other user. */
  readonly others: readonly string[];
  /** The line "new" stands in front of the first message of others in there. */
  readonly unreadAtOpening: { readonly read: bigint; readonly head: bigint };
  readonly nowMs: number;
  readonly edit: (message: Outgoing) => void;
  readonly dismiss: (message: Outgoing) => void;
}

type Status = "" | "sending" | "stored" | "read" | "failed";

interface Bubble {
  readonly key: string;
  readonly sender: string;
  readonly text: string;
  readonly timeMs: number;
  readonly mine: boolean;
  readonly follows: boolean;
  readonly gone: boolean;
  readonly status: Status;
  /** What stands under it in words. */
  readonly words: string;
  readonly readers: readonly string[];
  readonly failed?: Outgoing;
}

/** Reckoned once for all messages: a group may have thousands of readers. */
interface Read {
  /** Under which message each reader stands: the last one shown that they read. */
  readonly standing: ReadonlyMap<bigint, readonly string[]>;
  readonly byAllUpTo: bigint;
}

export function messageItems(shown: Shown): Item[] {
  const items: Item[] = [];
  const read: Read = { standing: readersStanding(shown), byAllUpTo: readByAllUpTo(shown) };
  const lastOwn = shown.entries.findLast((entry) => entry.senderUserId === shown.me && textOf(entry) !== undefined);
  let before: { sender: string; timeMs: number } | undefined;
  let isNewShown = false;

  for (const entry of shown.entries) {
    const timeMs = Number(entry.serverTimeMs);
    if (before === undefined || !sameDay(before.timeMs, timeMs)) {
      items.push(line("day", dayWords(timeMs, shown.nowMs), `day-${new Date(timeMs).toDateString()}`));
      before = undefined;
    }
    if (!isNewShown && wasUnread(shown, entry)) {
      isNewShown = true;
      items.push(line("new-line", "New", "new"));
      before = undefined;
    }
    const text = textOf(entry);
    if (text === undefined) {
      const words = eventWords(entry, shown.me);
      if (words !== undefined) items.push(line("system", words, `seq-${entry.seq}`));
      before = { sender: "", timeMs };
      continue;
    }
    const follows = before?.sender === entry.senderUserId && timeMs - before.timeMs < FOLLOWS_MS;
    items.push(bubbleItem(entryBubble(shown, entry, text, follows, entry === lastOwn, read), shown));
    before = { sender: entry.senderUserId, timeMs };
  }
  for (const message of shown.outgoing) {
    items.push(bubbleItem(outgoingBubble(shown, message, before?.sender === shown.me), shown));
    before = { sender: shown.me, timeMs: shown.nowMs };
  }
  return items;
}

/** In a conversation that is new as a whole the line would say nothing. */
function wasUnread({ me, unreadAtOpening: { read, head } }: Shown, entry: Entry): boolean {
  return read > 0n && entry.seq > read && entry.seq <= head && entry.senderUserId !== me;
}

/** How far all others have read; 0 where there are none. */
function readByAllUpTo({ others, readers }: Shown): bigint {
  const [first = 0n, ...more] = others.map((other) => readers.get(other) ?? 0n);
  return more.reduce((least, seq) => (seq < least ? seq : least), first);
}

function readersStanding({ entries, readers }: Shown): Map<bigint, string[]> {
  const messages = entries.filter((entry) => textOf(entry) !== undefined);
  const standing = new Map<bigint, string[]>();
  for (const [reader, seq] of [...readers].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const at = messages[countUpTo(messages, seq) - 1];
    // Under one's own message it would say nothing.
    if (at === undefined || at.senderUserId === reader) continue;
    const there = standing.get(at.seq);
    if (there === undefined) standing.set(at.seq, [reader]);
    else there.push(reader);
  }
  return standing;
}

/** How many of the messages, which rise by seq, have at most this one. */
function countUpTo(messages: readonly Entry[], seq: bigint): number {
  let [low, high] = [0, messages.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (messages[middle]!.seq <= seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

function entryBubble(
  shown: Shown,
  entry: Entry,
  text: string,
  follows: boolean,
  isLastOwn: boolean,
  { standing, byAllUpTo }: Read,
): Bubble {
  const mine = entry.senderUserId === shown.me;
  const readByAll = entry.seq <= byAllUpTo;
  let words = "";
  if (isLastOwn && shown.others.length > 0) {
    const readBy = shown.others.filter((other) => (shown.readers.get(other) ?? 0n) >= entry.seq);
    words = readBy.length > 0 ? `Read by ${shown.group && readByAll ? "everyone" : nameList(readBy)}` : "Stored";
  }
  return {
    key: `message-${entry.senderUserId}-${entry.clientId}`,
    sender: entry.senderUserId,
    text,
    timeMs: Number(entry.serverTimeMs),
    mine,
    follows,
    gone: entry.content.case === "tombstone",
    status: mine ? (readByAll ? "read" : "stored") : "",
    words,
    readers: standing.get(entry.seq) ?? [],
  };
}

function outgoingBubble(shown: Shown, message: Outgoing, follows: boolean): Bubble {
  return {
    key: `message-${shown.me}-${message.id}`,
    sender: shown.me,
    text: message.text,
    timeMs: 0,
    mine: true,
    follows,
    gone: false,
    status: message.status,
    words: message.status === "failed" ? `Not sent: ${message.reason}.` : "",
    readers: [],
    ...(message.status === "failed" ? { failed: message } : {}),
  };
}

function line(kind: "day" | "system" | "new-line", words: string, key: string): Item {
  return { key, version: words, make: () => element("li", { class: kind }, words) };
}

function bubbleItem(bubble: Bubble, shown: Shown): Item {
  return {
    key: bubble.key,
    version: JSON.stringify([bubble.text, bubble.timeMs, bubble.follows, bubble.status, bubble.words, bubble.readers]),
    make: () => {
      const item = element("li");
      fill(item, bubble, shown);
      return item;
    },
    update: (item) => fill(item, bubble, shown),
  };
}

/** In place, so that a screen reader does not tell a message again when somebody has read it. */
function fill(item: HTMLElement, bubble: Bubble, shown: Shown): void {
  const classes = ["message", bubble.mine && "mine", bubble.follows && "follows", bubble.gone && "gone"];
  item.className = classes.filter(Boolean).join(" ");
  item.dataset.status = bubble.status;
  if (item.firstChild === null) {
    if (!bubble.mine && shown.group) item.append(element("span", { class: "author" }, bubble.sender));
    else item.append(spoken(bubble.mine ? "You:" : `${bubble.sender}:`));
    item.append(element("div", { class: "bubble" }, element("span", { class: "text" }, bubble.text)));
    item.append(element("div", { class: "under", "aria-live": "off" }));
  }
  const author = item.querySelector<HTMLElement>(".author");
  if (author !== null) author.hidden = bubble.follows;
  item.querySelector(".meta")?.remove();
  item.querySelector(".bubble")?.append(meta(bubble));
  item.querySelector(".under")?.replaceChildren(...under(bubble, shown));
}

const STATUS_ICONS = { sending: "clock", stored: "stored", read: "read", failed: "warning" } as const;

function meta(bubble: Bubble): HTMLElement {
  const made = element("span", { class: "meta", "aria-live": "off" });
  if (bubble.timeMs > 0) {
    made.append(element("time", { datetime: new Date(bubble.timeMs).toISOString() }, clockWords(bubble.timeMs)));
  }
  if (bubble.status !== "") made.append(icon(STATUS_ICONS[bubble.status]), spoken(bubble.status));
  return made;
}

function under(bubble: Bubble, shown: Shown): HTMLElement[] {
  const made: HTMLElement[] = [];
  if (bubble.words !== "") made.push(element("span", bubble.failed === undefined ? {} : { class: "failure" }, bubble.words));
  if (shown.group && bubble.readers.length > 0) {
    const words = `Read up to here by ${nameList(bubble.readers)}`;
    const faces = bubble.readers.slice(0, FACES_MAX).map((reader) => avatar(reader, "small"));
    made.push(element("span", { class: "readers", role: "img", "aria-label": words, title: words }, ...faces));
  }
  const { failed } = bubble;
  if (failed !== undefined) {
    const edit = element("button", { class: "quiet" }, "Edit");
    edit.addEventListener("click", () => shown.edit(failed));
    const dismiss = element("button", { class: "quiet" }, "Dismiss");
    dismiss.addEventListener("click", () => shown.dismiss(failed));
    made.push(element("span", { class: "choices" }, edit, dismiss));
  }
  return made;
}
