// Why a call was refused.
//
// In: a final error of the server, a bound of this client, or what a storage or an app did. Out: one class each, told apart
// by `instanceof` or `name`. Always: an error that may still turn into an answer is never thrown; the client repeats the
// command instead.
import { ErrorCode } from "./gen/client_pb.js";

/** A FINAL error of the server: the command is not stored and the same again will not help. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
  /** As on the wire; a number this client does not know is possible. */
  readonly code: ErrorCode;
  /** For a developer's eyes; never parse it. */
  readonly detail: string;

  constructor(code: ErrorCode, detail: string) {
    super(`refused: ${ErrorCode[code] ?? code}${detail ? ` (${detail})` : ""}`);
    this.code = code;
    this.detail = detail;
  }
}

/** A bound of this client is reached (see `outboxSendsMax`, `requestsMax`); nothing was accepted. */
export class FullError extends Error {
  override readonly name = "FullError";
  constructor() {
    super("too many commands wait for their answers");
  }
}

/** `close()` was called before the answer. A send is in the storage's outbox and goes out at the next start from it. */
export class ClosedError extends Error {
  override readonly name = "ClosedError";
  constructor() {
    super("the client is closed");
  }
}

/** The server answered with something this client does not know; the command has ended. */
export class UnknownAnswerError extends Error {
  override readonly name = "UnknownAnswerError";
  constructor() {
    super("the server gave an answer this client does not know");
  }
}

/** For a `Storage` to throw from `save`: what it had saved before is gone. The client then saves all of it again. */
export class StorageLostError extends Error {
  override readonly name = "StorageLostError";
  constructor() {
    super("the storage was emptied");
  }
}

/** The token, which may have to be fetched, has not yet told who the user is. */
export class UserUnknownError extends Error {
  override readonly name = "UserUnknownError";
  constructor() {
    super("the user is not known before the first `state` event: wait for it, or name `user` in the options");
  }
}
