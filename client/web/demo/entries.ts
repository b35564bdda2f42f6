// What an entry says.
//
// In: entries and unanswered sends of the client. Out: text. Always: a body that this page cannot show is told as such.
import { messageBody, type Entry, type MessageBody } from "@im-server/client";

/** Undefined: the entry is no message that somebody wrote. */
export function textOf(entry: Entry): string | undefined {
  if (entry.content.case === "tombstone") return "deleted";
  if (entry.content.case !== "message") return undefined;
  return bodyText(messageBody(entry));
}

export function bodyText(body: MessageBody | undefined): string {
  if (body === undefined) return "(not readable)";
  return body.text !== "" || body.contentType === "" ? body.text : `(${body.contentType})`;
}

/** The text of a send without an answer, which is not an entry yet. */
export function pendingText(body: Uint8Array): string {
  return bodyText(messageBody({ content: { case: "message", value: { body } } } as Entry));
}
