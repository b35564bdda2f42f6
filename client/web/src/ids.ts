// Ids that a client derives by itself; proto/README.md, "Ids".
//
// In: ids of users and commands. Out: ids of logs. Always: the same on every client and on the server
// (proto/vectors/ids.json).
import { base64url } from "./base64url.js";
import { sha256 } from "./sha256.js";

const ID = /^[A-Za-z0-9_-]{1,64}$/;

export function isId(text: string): boolean {
  return ID.test(text);
}

/** The conversation of two users; of one with oneself too. */
export function directConversationId(a: string, b: string): string {
  // Ids are ASCII: the order of UTF-16 units is that of bytes.
  return a <= b ? derived("d", a, b) : derived("d", b, a);
}

export function groupConversationId(creator: string, commandId: string): string {
  return derived("g", creator, commandId);
}

/** The user's own log, where read cursors move. */
export function userLogId(user: string): string {
  return derived("u", user);
}

function derived(kind: string, ...parts: string[]): string {
  const bytes = [kind.charCodeAt(0)];
  for (const part of parts) {
    if (!isId(part)) throw new TypeError(`not an id: ${JSON.stringify(part)}`);
    bytes.push(part.length);
    for (const character of part) bytes.push(character.charCodeAt(0));
  }
  return kind + base64url(sha256(Uint8Array.from(bytes)).subarray(0, 16));
}
