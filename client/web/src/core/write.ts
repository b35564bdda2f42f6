// One command that writes a conversation's log, as it waits for its final answer.
//
// In: a send, or a command to a group. Out: the command as it stands on the wire, and what it is asked for. Always: only
// `after` differs between two attempts.
import { create } from "@bufbuild/protobuf";
import { SendSchema } from "../gen/client_pb.js";
import { groupConversationId } from "../ids.js";
import type { Asked, Command } from "./wire.js";

export interface QueuedSend {
  /** Rises in the order of asking, over reloads too. */
  readonly ticket: number;
  readonly conversation: string;
  /** Undefined when the send was addressed to the conversation. */
  readonly userId: string | undefined;
  readonly clientMessageId: string;
  readonly body: Uint8Array;
}

type GroupCommand = Extract<Command, { case: "createGroup" | "addMembers" | "removeMember" | "leaveGroup" }>;

/** A command to a group, other than a send. It does not outlive the page. */
export interface QueuedToGroup {
  readonly ticket: number;
  readonly conversation: string;
  readonly command: GroupCommand;
}

export type QueuedWrite = QueuedSend | QueuedToGroup;

export function isSend(write: QueuedWrite): write is QueuedSend {
  return "clientMessageId" in write;
}

/** `undefined`: a command that writes to no group. */
export function toGroup(ticket: number, user: string, command: Command): QueuedToGroup | undefined {
  switch (command.case) {
    case "createGroup":
      return { ticket, conversation: groupConversationId(user, command.value.commandId), command };
    case "addMembers":
    case "removeMember":
    case "leaveGroup":
      return { ticket, conversation: command.value.conversationId, command };
    default:
      return undefined;
  }
}

/** `client_message_id` or `command_id`: one name space. */
export function idOf(write: QueuedWrite): string {
  return isSend(write) ? write.clientMessageId : write.command.value.commandId;
}

/** As it is written now. `after`: the id of the command before it that has no final answer, or empty. */
export function commandOf(write: QueuedWrite, after: string): Command {
  if (isSend(write)) {
    const { conversation, clientMessageId, body, userId } = write;
    const to =
      userId === undefined
        ? { case: "conversationId" as const, value: conversation }
        : { case: "userId" as const, value: userId };
    return { case: "send", value: create(SendSchema, { to, clientMessageId, after, body }) };
  }
  const { command } = write;
  // `CreateGroup` is the first of its log.
  if (command.case !== "createGroup") command.value.after = after;
  return command;
}

export function askedBy(write: QueuedWrite): Asked {
  const { conversation } = write;
  return { kind: isSend(write) ? "send" : "to-group", conversation, id: idOf(write) };
}
