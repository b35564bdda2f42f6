// Delimited frames: a varint32 length, then that many bytes.
//
// In: one binary message of the WebSocket. Out: its frames in order, of length 0 for a heartbeat. Always: a length is
// checked before anything is cut; a message ends where its last frame ends; bytes that are no message of the schema are
// refused, where the protobuf runtime alone would read on.
import { type DescField, type DescMessage, type MessageShape, ScalarType, fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

/** Of a server frame; proto/README.md. */
export const SERVER_FRAME_BYTES_MAX = 256 * 1024;

/** A frame of length zero. */
export const HEARTBEAT = Uint8Array.of(0);

/** The longest length prefix: 32 bits in groups of 7. */
const LENGTH_BYTES_MAX = 5;

export class FrameError extends Error {
  readonly fault: "too-large" | "protocol" | "unfinished";

  constructor(fault: FrameError["fault"]) {
    super(`not a frame: ${fault}`);
    this.fault = fault;
  }
}

/** Behind its length. */
export function delimited(frame: Uint8Array): Uint8Array {
  const length: number[] = [];
  let rest = frame.length;
  for (; rest > 0x7f; rest >>>= 7) length.push((rest & 0x7f) | 0x80);
  length.push(rest);
  const out = new Uint8Array(length.length + frame.length);
  out.set(length);
  out.set(frame, length.length);
  return out;
}

/** Throws `FrameError` where the message stops being frames. */
export function* frames(message: Uint8Array, frameBytesMax: number): Generator<Uint8Array> {
  let at = 0;
  while (at < message.length) {
    const [length, behind] = readLength(message, at);
    if (length > frameBytesMax) throw new FrameError("too-large");
    if (behind + length > message.length) throw new FrameError("unfinished");
    at = behind + length;
    yield message.subarray(behind, at);
  }
}

function readLength(message: Uint8Array, at: number): [length: number, behind: number] {
  let length = 0;
  for (let place = 0; at + place < message.length; place++) {
    const byte = message[at + place]!;
    // The fifth byte holds the upper 4 bits alone, and nothing may follow it.
    if (place === LENGTH_BYTES_MAX - 1 && byte > 0x0f) throw new FrameError("protocol");
    length += (byte & 0x7f) * 2 ** (7 * place);
    if (byte & 0x80) continue;
    // A last byte of zero behind others says nothing: the length was written longer than it is.
    if (byte === 0 && place > 0) throw new FrameError("protocol");
    return [length, at + place + 1];
  }
  throw new FrameError("unfinished");
}

/** Throws `FrameError` if the bytes are no such message. */
export function decode<Desc extends DescMessage>(schema: Desc, frame: Uint8Array): MessageShape<Desc> {
  try {
    checkWireTypes(schema, new BinaryReader(frame), frame.length);
    return fromBinary(schema, frame);
  } catch {
    throw new FrameError("protocol");
  }
}

/** Throws where a field has another wire type than the schema says, or reaches beyond its message. */
function checkWireTypes(schema: DescMessage, reader: BinaryReader, end: number): void {
  while (reader.pos < end) {
    const [number, wireType] = reader.tag();
    const field = schema.fields.find((field) => field.number === number);
    if (field !== undefined && wireType !== wireTypeOf(field)) throw new FrameError("protocol");
    const inner = field?.message;
    if (inner !== undefined) {
      const length = reader.uint32();
      if (reader.pos + length > end) throw new FrameError("protocol");
      checkWireTypes(inner, reader, reader.pos + length);
    } else {
      reader.skip(wireType, number);
    }
  }
  if (reader.pos !== end) throw new FrameError("protocol");
}

/** Of the kinds of fields this schema has; repeated ones are messages and strings, so none is packed. */
function wireTypeOf(field: DescField): WireType {
  const isText = field.scalar === ScalarType.STRING || field.scalar === ScalarType.BYTES;
  return isText || field.message !== undefined ? WireType.LengthDelimited : WireType.Varint;
}
