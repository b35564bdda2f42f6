// What people say to each other, in and out of the bytes that travel.
//
// In: a text or the parts of a message; an entry. Out: an encoded `MessageBody`; the decoded one. Always: bytes given
// are sent as they are.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Body } from "./api.js";
import { type Entry, type MessageBody, MessageBodySchema } from "./gen/client_pb.js";

export function encodeBody(body: Body): Uint8Array {
  if (body instanceof Uint8Array) return body;
  const parts = typeof body === "string" ? { text: body } : body;
  return toBinary(MessageBodySchema, create(MessageBodySchema, parts));
}

/** What an entry says. `undefined`: it is no message, or its bytes are no `MessageBody`. */
export function messageBody(entry: Entry): MessageBody | undefined {
  if (entry.content.case !== "message") return undefined;
  try {
    return fromBinary(MessageBodySchema, entry.content.value.body);
  } catch {
    return undefined;
  }
}
