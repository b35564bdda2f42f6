// The golden vectors of proto/vectors/: bytes and what they mean, the same for clients in every language.
//
// In: the committed files, and the full compiled schema (proto/descriptor.bin). Out: a verdict. Always: the meaning is
// told by the full schema, not by the short form this client is built with, so the two check one another.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createFileRegistry, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import type { DescField, DescMessage, JsonValue } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { FrameError, decode, delimited, frames } from "../dist/core/frames.js";
import { ClientFrameSchema, ServerFrameSchema, file_client } from "../dist/gen/client_pb.js";
import { directConversationId, groupConversationId, userLogId } from "../dist/ids.js";
import { sha256 } from "../dist/sha256.js";

const PROTO = new URL("../../../proto/", import.meta.url);
const FRAME_BYTES_MAX = 64 * 1024;

const full = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(new URL("descriptor.bin", PROTO))));
const unhex = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));
const vectors = (name: string) => JSON.parse(readFileSync(new URL(`vectors/${name}.json`, PROTO), "utf8"));

interface FrameVector {
  readonly name: string;
  readonly direction: "client" | "server";
  readonly hex: string;
  readonly meaning: JsonValue;
}

const SCHEMAS = { client: ClientFrameSchema, server: ServerFrameSchema };

function verdict(bytes: Uint8Array): string {
  try {
    for (const frame of frames(bytes, FRAME_BYTES_MAX)) decode(ClientFrameSchema, frame);
    return "fine";
  } catch (error) {
    assert.ok(error instanceof FrameError, String(error));
    return { "too-large": "FRAME_TOO_LARGE", protocol: "PROTOCOL_ERROR", unfinished: "unfinished" }[error.fault];
  }
}

test("every frame is read as one frame, and means what its vector says", () => {
  const list: FrameVector[] = vectors("frames");
  assert.ok(list.length > 50);
  for (const { name, direction, hex, meaning } of list) {
    const read = [...frames(unhex(hex), FRAME_BYTES_MAX)];
    assert.equal(read.length, 1, name);
    const fullSchema = full.getMessage(SCHEMAS[direction].typeName)!;
    const meant = fromBinary(SCHEMAS[direction], toBinary(fullSchema, fromJson(fullSchema, meaning)));
    const message = decode(SCHEMAS[direction] as DescMessage, read[0]!);
    assert.deepEqual(withoutUnknown(message), withoutUnknown(meant), name);
    assert.deepEqual(toJson(SCHEMAS[direction] as DescMessage, message), meaning, name);
  }
});

test("what this client writes is read as it was meant, behind its length", () => {
  for (const { name, direction, hex, meaning } of vectors("frames") as FrameVector[]) {
    const [frame] = frames(unhex(hex), FRAME_BYTES_MAX);
    const written = toBinary(SCHEMAS[direction] as DescMessage, decode(SCHEMAS[direction] as DescMessage, frame!));
    const [again] = frames(delimited(written), FRAME_BYTES_MAX);
    const fullSchema = full.getMessage(SCHEMAS[direction].typeName)!;
    assert.deepEqual(toJson(fullSchema, fromBinary(fullSchema, again!)), meaning, name);
  }
});

test("a message may hold many frames, and ends where its last frame ends", () => {
  const list: FrameVector[] = vectors("frames");
  const all = list.map(({ hex }) => hex);
  const read = [...frames(unhex(all.join("")), FRAME_BYTES_MAX)];
  assert.deepEqual(
    read.map((frame) => Buffer.from(delimited(frame)).toString("hex")),
    all,
  );
  for (const { name, hex } of list) {
    for (let at = 1; at < hex.length / 2; at++) {
      assert.throws(
        () => [...frames(unhex(hex).subarray(0, at), FRAME_BYTES_MAX)],
        { fault: "unfinished" },
        `${name} ${at}`,
      );
    }
  }
});

test("bad frames are refused, and for the reason the vector gives", () => {
  for (const { name, hex, error } of vectors("bad")) assert.equal(verdict(unhex(hex)), error, name);
});

test("derived ids are those of the file", () => {
  const ids = vectors("ids");
  for (const { user_ids, conversation_id } of ids.direct) {
    assert.equal(directConversationId(user_ids[0], user_ids[1]), conversation_id);
  }
  for (const { creator, command_id, conversation_id } of ids.groups) {
    assert.equal(groupConversationId(creator, command_id), conversation_id);
  }
  for (const { user_id, user_log_id } of ids.users) assert.equal(userLogId(user_id), user_log_id);
  for (const name of ["", "a b", "ä", "x".repeat(65)]) assert.throws(() => userLogId(name), TypeError);
});

test("this SHA-256 is the system's, at every length up to three blocks", async () => {
  for (let length = 0; length <= 192; length++) {
    const bytes = Uint8Array.from({ length }, (_, at) => (at * 7 + length) & 0xff);
    const expected = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    assert.deepEqual(sha256(bytes), expected, `length ${length}`);
  }
});

test("the generated messages are those of proto/client.proto", () => {
  execFileSync(process.execPath, [new URL("../scripts/generate.mjs", import.meta.url).pathname, "--check"], {
    stdio: "inherit",
  });
  const described = (message: DescMessage) => [message.typeName, message.fields.map(field), message.oneofs.map(String)];
  const field = (one: DescField) => {
    const { number, name, localName, jsonName, fieldKind, presence, scalar, oneof } = one;
    const kinds = [number, name, localName, jsonName, fieldKind, presence, scalar, oneof?.localName];
    return [...kinds, one.message?.typeName, one.enum?.typeName, one.fieldKind === "list" ? one.listKind : ""];
  };
  const fullFile = full.getFile("client.proto")!;
  assert.deepEqual(file_client.messages.map(described), fullFile.messages.map(described));
  const values = (file: typeof fullFile) =>
    [...file.enums, ...file.messages.flatMap((message) => message.nestedEnums)].map((one) => [
      one.typeName,
      one.sharedPrefix,
      one.values.map(({ name, localName, number }) => [name, localName, number]),
    ]);
  assert.deepEqual(values(file_client), values(fullFile));
});

function withoutUnknown(message: object): unknown {
  return JSON.parse(
    JSON.stringify(message, (key, value) => {
      if (key === "$unknown") return undefined;
      return typeof value === "bigint" ? `${value}n` : value;
    }),
  );
}
