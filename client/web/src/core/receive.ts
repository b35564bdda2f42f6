// One frame of the server, or one missing answer, to the part of the client it concerns.
//
// In: decoded frames and requests that timed out. Out: calls of the parts. Always: a frame with an id nobody waits for,
// and one with a body this client does not know, change nothing.
import { create } from "@bufbuild/protobuf";
import {
  CloseCode,
  type EntryPushed,
  EntrySchema,
  ErrorClass,
  ErrorCode,
  ErrorSchema,
  type SendAck,
  type ServerFrame,
  type SignedIn,
  type Error as WireError,
} from "../gen/client_pb.js";
import { isId } from "../ids.js";
import type { Core } from "./core.js";
import type { Answer, Refusal } from "./event.js";
import type { Asked } from "./wire.js";
import { type QueuedSend, type QueuedWrite, isSend } from "./write.js";

type Body = ServerFrame["body"];

export function onFrame(core: Core, frame: ServerFrame, nowMs: number): void {
  if (frame.requestId === 0n) return onPush(core, frame.body, nowMs);
  const asked = core.wire.answered(frame.requestId);
  if (asked === undefined) return;
  if (frame.body.case === "error") onError(core, Number(frame.requestId), asked, frame.body.value, nowMs);
  else if (frame.body.case === undefined) onUnknownAnswer(core, Number(frame.requestId), asked, nowMs);
  else onAnswer(core, asked, frame.body, nowMs);
}

/** No answer in time: like one that says so. */
export function onTimeOut(core: Core, requestId: number, asked: Asked, nowMs: number): void {
  const error = create(ErrorSchema, { class: ErrorClass.UNKNOWN, code: ErrorCode.TIMED_OUT });
  onError(core, requestId, asked, error, nowMs);
}

/**
 * The server is newer than this client. The app's request ends with it; what the client needs itself is asked again.
 */
function onUnknownAnswer(core: Core, requestId: number, asked: Asked, nowMs: number): void {
  const answer: Answer = { case: "unknown", value: undefined };
  if (asked.kind === "request") {
    if (core.requests.done(asked.ticket)) core.events.push({ kind: "answered", ticket: asked.ticket, answer });
  } else if (asked.kind === "send" || asked.kind === "to-group") {
    const write = core.outbox.acked(asked.conversation, asked.id);
    if (write === undefined) return;
    if (isSend(write)) core.changes.removed(write);
    core.events.push({ kind: "answered", ticket: write.ticket, answer });
  } else {
    onTimeOut(core, requestId, asked, nowMs);
  }
}

function onPush(core: Core, body: Body, nowMs: number): void {
  switch (body.case) {
    case "entry":
      return onEntry(core, body.value);
    case "receipt": {
      const { conversationId: conversation, userId, readSeq } = body.value;
      if (!isId(conversation) || !isId(userId)) return;
      core.conversations.receipt(conversation, userId, readSeq);
      core.events.push({ kind: "receipt", conversation, userId, readSeq });
      return;
    }
    case "syncHint":
      return core.sync.hint(body.value.inboxVersion);
    case "kicked": {
      const { reason, generation } = body.value;
      core.link.kicked(reason);
      core.events.push({ kind: "kicked", reason, generation });
      return;
    }
    case "closing":
      return core.endLink({ kind: "closed", code: body.value.code }, body.value.reconnectAfterMs, nowMs);
  }
}

function onEntry(core: Core, { conversationId, epoch, entry }: EntryPushed): void {
  if (!isId(conversationId) || entry === undefined || epoch !== core.epoch || core.link.phase.name !== "up") return;
  core.sync.admit(conversationId, entry, core.gaps);
}

function onAnswer(core: Core, asked: Asked, body: Body, nowMs: number): void {
  if (asked.kind === "sign-in" && body.case === "signedIn") {
    onSignedIn(core, body.value, nowMs);
  } else if (asked.kind === "send" && body.case === "sendAck") {
    onAck(core, asked.conversation, asked.id, body.value);
  } else if (asked.kind === "to-group") {
    const write = core.outbox.acked(asked.conversation, asked.id);
    if (write !== undefined) onAnswered(core, write.ticket, body);
  } else if (asked.kind === "pull" && body.case === "pulled") {
    core.gaps.pulled(asked.log, body.value, nowMs, core.random);
  } else if (asked.kind === "sync" && body.case === "synced") {
    if (!core.sync.expects(asked.attempt)) return;
    const fromNow = core.config.history === "from-now";
    core.sync.page(body.value, core.userLog, fromNow, core.conversations, core.gaps);
    core.changes.device();
  } else if (asked.kind === "request") {
    if (core.requests.done(asked.ticket)) onAnswered(core, asked.ticket, body);
  } else {
    // An answer to something else than was asked: the server's fault, the link is of no use.
    core.endLink({ kind: "bad-frame" }, 0, nowMs);
  }
}

function onSignedIn(core: Core, signedIn: SignedIn, nowMs: number): void {
  if (signedIn.userId !== core.config.user) return core.endLink({ kind: "wrong-user" }, 0, nowMs);
  core.link.phase = { name: "up" };
  core.heartbeat.start(signedIn.heartbeatIntervalMs, signedIn.idleTimeoutMs, nowMs);
  core.wire.setFrameBytesMax(signedIn.frameBytesMax);
  core.outbox.setPendingMax(signedIn.pendingSendsMax);
  core.outbox.restart();
  core.requests.restart();
  core.sync.restart();
  if (core.epoch !== 0n && core.epoch !== signedIn.epoch) core.reset();
  core.epoch = signedIn.epoch;
  core.changes.device();
  core.gaps.restart();
}

/** It is not stored and never will be. */
export function onRefused(core: Core, write: QueuedWrite, refusal: Refusal): void {
  const { ticket, conversation } = write;
  if (!isSend(write)) {
    core.events.push({ kind: "request-refused", ticket, refusal });
    return;
  }
  core.changes.removed(write);
  core.events.push({ kind: "refused", ticket, conversation, clientMessageId: write.clientMessageId, refusal });
}

function onAck(core: Core, conversation: string, clientMessageId: string, ack: SendAck): void {
  const send = core.outbox.acked(conversation, clientMessageId);
  if (send === undefined) return;
  if (!isSend(send)) {
    // One id for a group command and a send, and the server took both: its fault, and no answer to this one.
    core.events.push({ kind: "answered", ticket: send.ticket, answer: { case: "unknown", value: undefined } });
    return;
  }
  core.changes.removed(send);
  const { epoch, seq, serverTimeMs } = ack;
  core.events.push({
    kind: "acked",
    ticket: send.ticket,
    sent: { conversation, clientMessageId, epoch, seq, serverTimeMs },
  });
  // The server does not push to a connection what its ack tells: the ack stands for the entry.
  core.sync.admit(conversation, ownEntry(core, send, ack), core.gaps);
}

function ownEntry(core: Core, send: QueuedSend, { seq, ordinal, serverTimeMs }: SendAck) {
  const toUserId = send.userId ?? core.conversations.view(send.conversation)?.peerUserId ?? "";
  return create(EntrySchema, {
    seq,
    ordinal,
    serverTimeMs,
    senderUserId: core.config.user,
    clientId: send.clientMessageId,
    content: { case: "message", value: { body: send.body, toUserId } },
  });
}

/** The final answer to a command other than a send. */
function onAnswered(core: Core, ticket: number, body: Body): void {
  core.events.push({ kind: "answered", ticket, answer: answerOf(body) });
  if (body.case === "readMarked") {
    core.conversations.readMoved(body.value.conversationId, body.value.readSeq, body.value.readOrdinal);
  } else if (body.case === "commandAck" && isId(body.value.conversationId)) {
    core.gaps.sawHead(body.value.conversationId, body.value.seq);
  }
}

function answerOf(body: Body): Answer {
  switch (body.case) {
    case "commandAck":
    case "readMarked":
    case "members":
    case "pulled":
      return body;
    default:
      return { case: "unknown", value: undefined };
  }
}

function onError(core: Core, requestId: number, asked: Asked, error: WireError, nowMs: number): void {
  const isFinal = error.class === ErrorClass.FINAL;
  const refusal = { code: error.code, detail: error.detail };
  switch (asked.kind) {
    case "sign-in":
      // The same sign-in again would be refused again.
      if (isFinal) core.endLink({ kind: "closed", code: CloseCode.BAD_TOKEN }, 0, nowMs);
      else core.endLink({ kind: "silent" }, error.retryAfterMs, nowMs);
      return;
    case "send":
    case "to-group": {
      const refused = core.outbox.failed(asked.conversation, requestId, error, nowMs, core.random);
      if (refused !== undefined) onRefused(core, refused, refusal);
      return;
    }
    case "request":
      if (!isFinal) core.requests.failed(asked.ticket, error.retryAfterMs, nowMs, core.random);
      else if (core.requests.done(asked.ticket)) {
        core.events.push({ kind: "request-refused", ticket: asked.ticket, refusal });
      }
      return;
    case "pull":
      if (!isFinal) return core.gaps.pullFailed(asked.log, error.retryAfterMs, nowMs, core.random);
      core.gaps.pullRefused(asked.log);
      core.events.push({ kind: "unreadable", conversation: asked.log, refusal });
      if (error.code === ErrorCode.RESET) core.reset();
      return;
    case "sync":
      if (!core.sync.expects(asked.attempt)) return;
      if (isFinal && error.code === ErrorCode.RESET && core.sync.token.length > 0) return core.reset();
      // Refused for another reason, the cursors are as good as before: they are kept, and asked with again later.
      if (isFinal && core.sync.isFirstRefusal()) core.events.push({ kind: "sync-refused", refusal });
      return core.sync.failed(error.retryAfterMs, nowMs, core.random);
  }
}
