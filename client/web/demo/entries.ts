// What an entry says.
//
// In: entries and unanswered sends of the client. Out: text. Always: a body that this page cannot show is told as such.
import { messageBody, type Entry, type MessageBody } from "@im-server/client";

/** Decoded once for each entry, not once for each time it is shown. */
const texts = new WeakMap<Entry, string>();

/** Undefined: the entry is no message that somebody wrote. */
export function textOf(entry: Entry): string | undefined {
  if (entry.content.case === "tombstone") return "deleted";
  if (entry.content.case !== "message") return undefined;
  let text = texts.get(entry);
  if (text === undefined) texts.set(entry, (text = bodyText(messageBody(entry))));
  return text;
}

function bodyText(body: MessageBody | undefined): string {
  if (body === undefined) return "(not readable)";
  return body.text !== "" || body.contentType === "" ? body.text : `(${body.contentType})`;
}

/** The text of a send without an answer, which is not an entry yet. */
export function pendingText(body: Uint8Array): string {
  return bodyText(messageBody({ content: { case: "message", value: { body } } } as Entry));
}
