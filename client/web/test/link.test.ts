// Claims about the link: when it is given up, and when it is dialled again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { CloseCode, KickedSchema, Kicked_Reason } from "../dist/gen/client_pb.js";
import { Script, closing, synced } from "./script.js";

/** The last state told, and whether it is the end. */
const lastState = (script: Script) => {
  const states = script.events().flatMap((event) => (event.kind === "state" ? [event.state] : []));
  return states.at(-1);
};

test("no reconnect after a final close code", () => {
  for (const code of [
    CloseCode.BAD_TOKEN,
    CloseCode.USER_BANNED,
    CloseCode.PROTOCOL_ERROR,
    CloseCode.UNSUPPORTED_VERSION,
  ]) {
    const script = Script.live();
    script.push(closing(code));
    assert.deepEqual(lastState(script), { name: "closed", code });
    assert.equal(script.core.pollAction(), "close");
    script.wait(3_600_000);
    script.core.wake(script.nowMs);
    assert.deepEqual([script.core.pollAction(), script.core.deadlineMs(script.nowMs)], [undefined, undefined]);
    script.core.connect(script.nowMs);
    assert.equal(script.core.pollAction(), "connect", "the app may try again");
  }
});

test("a code that nobody knows yet goes by its range", () => {
  for (const [code, reconnects] of [
    [4123, true],
    [4999, false],
  ] as const) {
    const script = Script.live();
    script.push(closing(code));
    assert.equal(script.core.deadlineMs(script.nowMs) !== undefined, reconnects, String(code));
  }
});

test("a WebSocket close code counts like a Closing with that code, and plain ends reconnect", () => {
  const ends = [
    [1000, true],
    [1001, true],
    [1005, true],
    [1006, true],
    [1011, true],
    [1012, true],
    [1013, true],
    [undefined, true],
    [4000, true],
    [4004, true],
    [4499, true],
    [1002, false],
    [1003, false],
    [1007, false],
    [1009, false],
    [4500, false],
    [4503, false],
  ] as const;
  for (const [code, reconnects] of ends) {
    const script = Script.live();
    script.core.disconnected(code, script.nowMs);
    assert.equal(script.stateName(), reconnects ? "waiting" : "closed", String(code));
  }
});

test("back-off obeys the server", () => {
  for (let seed = 0; seed < 200; seed++) {
    const script = Script.fresh({}, seed);
    script.signIn();
    script.push(closing(CloseCode.GOING_AWAY, 7_000));
    const state = lastState(script);
    const retryInMs = state?.retryInMs ?? -1;
    assert.ok(retryInMs >= 7_000 && retryInMs <= 7_500, `seed ${seed}: ${retryInMs}`);
    assert.equal(script.core.pollAction(), "close");
    // Neither the network's return nor the app undercuts what the server asked for.
    script.wait(6_999);
    script.core.wake(script.nowMs);
    script.core.connect(script.nowMs);
    assert.equal(script.core.pollAction(), undefined, `seed ${seed}: dialled too early`);
    script.wait(1);
    assert.equal(script.core.pollAction(), "connect");
  }
});

test("the network's return ends a wait that the server did not ask for", () => {
  const script = Script.fresh();
  for (let time = 0; time < 8; time++) {
    script.wait(script.cut());
    assert.equal(script.core.pollAction(), "connect");
    script.open();
  }
  assert.ok(script.cut() > 0);
  script.core.wake(script.nowMs);
  assert.equal(script.core.pollAction(), "connect");
});

test("the network's return asks a link that is up whether it still is", () => {
  const script = Script.live();
  script.core.wake(script.nowMs);
  assert.ok(script.isSilent());
  assert.equal(script.heartbeats, 1);
  script.wait(4_999);
  assert.equal(script.stateName(), "live");
  script.wait(1);
  assert.equal(script.stateName(), "waiting");
});

test("the wait grows while the server is away and begins anew after a sync", () => {
  const script = Script.fresh();
  let longestMs = 0;
  for (let time = 0; time < 12; time++) {
    const delayMs = script.cut();
    assert.ok(delayMs <= 30_000);
    longestMs = Math.max(longestMs, delayMs);
    script.wait(delayMs);
    assert.equal(script.core.pollAction(), "connect");
    script.open();
  }
  assert.ok(longestMs > 5_000, String(longestMs));
  script.signIn();
  script.answer(script.expectSync(""), synced("t"));
  assert.ok(script.cut() <= 500);
});

test("an expired token is fetched anew and never used again", () => {
  const script = Script.live({ renewsToken: true });
  script.push(closing(CloseCode.TOKEN_EXPIRED));
  script.waitForDeadline();
  assert.deepEqual([script.core.pollAction(), script.core.pollAction()], ["close", "fetch-token"]);
  script.core.setToken("fresh", script.nowMs);
  assert.equal(script.core.pollAction(), "connect");
  script.open();
  assert.equal(script.signIn().token, "fresh");
});

test("a token that expired while there was no link is replaced at once, however long that was", () => {
  const script = Script.live({ renewsToken: true });
  for (let time = 0; time < 8; time++) {
    script.wait(script.cut());
    assert.equal(script.core.pollAction(), "connect");
  }
  script.open();
  script.push(closing(CloseCode.TOKEN_EXPIRED));
  assert.equal(script.core.pollAction(), "close");
  assert.equal(script.waitForDeadline(), 0);
  assert.equal(script.core.pollAction(), "fetch-token");
});

test("fresh tokens that expire at once do not spin", () => {
  const script = Script.live({ renewsToken: true });
  let waitedMs = 0;
  for (let time = 0; time < 10; time++) {
    script.push(closing(CloseCode.TOKEN_EXPIRED));
    script.core.pollAction();
    waitedMs += script.waitForDeadline();
    assert.equal(script.core.pollAction(), "fetch-token");
    script.core.setToken(`fresh ${time}`, script.nowMs);
    assert.equal(script.core.pollAction(), "connect");
    script.open();
  }
  assert.ok(waitedMs > 5_000, String(waitedMs));
});

test("a token that cannot be fetched is fetched again later", () => {
  const script = Script.live({ renewsToken: true });
  script.push(closing(CloseCode.TOKEN_EXPIRED));
  script.core.pollAction();
  script.waitForDeadline();
  assert.equal(script.core.pollAction(), "fetch-token");
  script.core.tokenFailed(script.nowMs);
  assert.equal(script.stateName(), "waiting");
  script.core.pollAction();
  script.waitForDeadline();
  assert.equal(script.core.pollAction(), "fetch-token");
  // Nor does one that is never fetched keep the client waiting for ever.
  script.wait(30_000);
  assert.equal(script.stateName(), "waiting");
});

test("an expired token that nobody can renew closes the client until the app brings one", () => {
  const script = Script.live();
  script.push(closing(CloseCode.TOKEN_EXPIRED));
  assert.deepEqual(lastState(script), { name: "closed", code: CloseCode.TOKEN_EXPIRED });
  script.core.pollAction();
  script.core.setToken("fresh", script.nowMs);
  script.core.connect(script.nowMs);
  assert.equal(script.core.pollAction(), "connect");
  script.open();
  assert.equal(script.signIn().token, "fresh");
});

test("a kick that loses its Closing still stays away", () => {
  const script = Script.live();
  const value = create(KickedSchema, { reason: Kicked_Reason.REPLACED, generation: 9n });
  script.push({ case: "kicked", value });
  script.core.disconnected(1006, script.nowMs);
  const events = script.events();
  assert.ok(events[0]?.kind === "kicked" && events[0].generation === 9n);
  assert.deepEqual(events.at(-1), { kind: "state", state: { name: "closed", code: CloseCode.REPLACED_BY_NEWER } });
});

test("a heartbeat is written each interval and a silent server is left", () => {
  const script = Script.live();
  script.wait(29_999);
  const heartbeats = () => {
    assert.ok(script.isSilent());
    return script.heartbeats;
  };
  assert.equal(heartbeats(), 0);
  script.wait(1);
  assert.equal(heartbeats(), 1);
  script.core.received(Uint8Array.of(0), script.nowMs);
  script.wait(74_999);
  assert.equal(script.stateName(), "live");
  script.wait(1);
  assert.equal(script.stateName(), "waiting");
});

test("a sign-in without an answer is given up after ten seconds", () => {
  const script = Script.fresh();
  script.wait(10_000);
  assert.equal(script.stateName(), "waiting");
});

test("each sign-in says which dial of this run it belongs to", () => {
  const script = Script.fresh();
  const said: [bigint, bigint][] = [];
  for (const _ of [1, 2, 3]) {
    const { clientRun, dial } = script.signIn();
    said.push([clientRun, dial]);
    script.wait(script.cut());
    assert.equal(script.core.pollAction(), "connect");
    script.open();
  }
  const run = said[0]?.[0] ?? 0n;
  assert(run !== 0n, "0 says nothing");
  assert.deepEqual(said, [
    [run, 1n],
    [run, 2n],
    [run, 3n],
  ]);
});

test("a message that is no protocol, or no whole frames, or text, ends the link", () => {
  const messages = [new Uint8Array(16).fill(0xff), Uint8Array.of(2, 0xff, 0xff), Uint8Array.of(5, 8), undefined];
  for (const message of messages) {
    const script = Script.live();
    script.core.received(message, script.nowMs);
    assert.equal(script.core.pollAction(), "close");
    assert.equal(script.stateName(), "waiting");
  }
});

test("a token of somebody else is not used", () => {
  const script = Script.fresh({ user: "bob" });
  script.signIn();
  assert.deepEqual(lastState(script), { name: "closed", code: CloseCode.BAD_TOKEN });
});

test("what is said after Closing is not heard", () => {
  const script = Script.live();
  script.push(closing(CloseCode.GOING_AWAY));
  script.push(closing(CloseCode.BAD_TOKEN));
  assert.equal(script.stateName(), "waiting");
});
