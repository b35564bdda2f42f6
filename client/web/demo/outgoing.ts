// Messages of this tab that are not yet in the log as it is shown.
//
// In: sends, the client's unanswered sends, their acks and refusals, entries. Out: what to show behind the log. Always: a
// message is shown exactly once, here until its entry is there; a refused one stays, with its reason, until it is dismissed.
import type { ErrorCode, PendingSend } from "@im-server/client";
import { refusalWords } from "./words.js";

export interface Outgoing {
  readonly conversation: string;
  readonly id: string;
  readonly text: string;
  status: "sending" | "stored" | "failed";
  /** Why it failed. */
  reason: string;
  /** Of a stored one whose entry has not come yet. */
  seq: bigint;
}

export class OutgoingMessages {
  #messages: Outgoing[] = [];

  of(conversation: string): readonly Outgoing[] {
    return this.#messages.filter((message) => message.conversation === conversation);
  }

  /** The newest that still waits for its answer. */
  lastSending(conversation: string): Outgoing | undefined {
    return this.#messages.findLast((message) => message.conversation === conversation && message.status === "sending");
  }

  sending(conversation: string, id: string, text: string): void {
    this.#messages.push({ conversation, id, text, status: "sending", reason: "", seq: 0n });
  }

  /** The client's unanswered sends: those of an earlier page load are shown in front of this one's. */
  restore(pending: readonly PendingSend[], textOfBody: (body: Uint8Array) => string): void {
    const known = new Set(this.#messages.map((message) => message.id));
    const earlier = pending
      .filter((send) => !known.has(send.clientMessageId))
      .map((send): Outgoing => ({
        conversation: send.conversation,
        id: send.clientMessageId,
        text: textOfBody(send.body),
        status: "sending",
        reason: "",
        seq: 0n,
      }));
    if (earlier.length > 0) this.#messages = [...earlier, ...this.#messages];
  }

  stored(id: string, seq: bigint): void {
    const message = this.#find(id);
    if (message !== undefined) Object.assign(message, { status: "stored", seq });
  }

  refused(id: string, code: ErrorCode): void {
    this.failed(id, refusalWords(code));
  }

  failed(id: string, reason: string): void {
    const message = this.#find(id);
    if (message !== undefined) Object.assign(message, { status: "failed", reason });
  }

  /** Its entry is in the log, or the person has seen the failure. */
  drop(id: string): void {
    this.#messages = this.#messages.filter((message) => message.id !== id);
  }

  #find(id: string): Outgoing | undefined {
    return this.#messages.find((message) => message.id === id);
  }
}
