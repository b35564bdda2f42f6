// Claims about what `npm pack` makes: it installs into an empty project, type-checks, bundles small, and talks to a
// real server.
//
// In: dist, README.md, a server (IM_SERVER_BIN, else the newer of target/release and target/debug). Out: a verdict.
// Always: the program runs from the installed package, by its name; the server has a folder and ports of its own and is
// stopped at the end.
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

const BUNDLE_GZIPPED_BYTES_MAX = 30_000;

const BUNDLE = ["--bundle", "--minify", "--format=esm", "--log-level=error"];

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const ROOT = here("../");
let project = "";

function run(command: string, args: string[], cwd = project): string {
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

before(() => {
  project = mkdtempSync(join(tmpdir(), "im-client-"));
  run("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", project], ROOT);
  const [tarball] = readdirSync(project);
  writeFileSync(join(project, "package.json"), JSON.stringify({ private: true, type: "module" }));
  run("npm", ["install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", `./${tarball}`]);
});

after(() => rmSync(project, { recursive: true, force: true }));

test("the package holds the client and nothing else", () => {
  const names = readdirSync(join(project, "node_modules/@im-server/client")).sort();
  assert.deepEqual(names, ["LICENSE", "README.md", "dist", "package.json"]);
  const installed = readdirSync(join(project, "node_modules")).filter((name) => !name.startsWith("."));
  assert.deepEqual(installed.sort(), ["@bufbuild", "@im-server"]);
});

test("the package's license is that of the repository", () => {
  const packed = readFileSync(join(project, "node_modules/@im-server/client/LICENSE"), "utf8");
  assert.equal(packed, readFileSync(here("../../../LICENSE"), "utf8"));
});

test("no registry's host is named in the lockfile", () => {
  assert.doesNotMatch(readFileSync(join(ROOT, "package-lock.json"), "utf8"), /"resolved"|https?:/);
});

test("the README's programs type-check in strict mode, however modules are resolved", () => {
  const snippets = [...readFileSync(join(ROOT, "README.md"), "utf8").matchAll(/```ts\n(.*?)```/gs)];
  assert.equal(snippets.length, 2);
  const files = snippets.map(([, program], at) => {
    writeFileSync(join(project, `readme-${at}.ts`), program!);
    return `readme-${at}.ts`;
  });
  const strict = {
    strict: true,
    noEmit: true,
    target: "ES2022",
    lib: ["ES2022", "DOM"],
    types: [],
    skipLibCheck: false,
  };
  const resolutions = [{ module: "NodeNext" }, { module: "ESNext", moduleResolution: "bundler" }];
  for (const resolution of resolutions) {
    const tsconfig = { compilerOptions: { ...strict, ...resolution }, files };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify(tsconfig));
    run(join(ROOT, "node_modules/.bin/tsc"), ["-p", "."]);
  }
});

test("the whole client with its protobuf runtime bundles to under 30 KB gzipped", (context) => {
  writeFileSync(join(project, "all.js"), 'export * from "@im-server/client";');
  run(join(ROOT, "node_modules/.bin/esbuild"), ["all.js", ...BUNDLE, "--outfile=bundle.js"]);
  const bytes = gzipSync(readFileSync(join(project, "bundle.js")), { level: 9 }).length;
  context.diagnostic(`${bytes} bytes gzipped`);
  assert.ok(bytes < BUNDLE_GZIPPED_BYTES_MAX, `${bytes} bytes`);
});

test("importing it without using it bundles to nothing", () => {
  const imports = [
    'import { connect } from "@im-server/client";',
    'import { tabDevice } from "@im-server/client/tab-device";',
  ];
  writeFileSync(join(project, "unused.js"), imports.join("\n"));
  run(join(ROOT, "node_modules/.bin/esbuild"), ["unused.js", ...BUNDLE, "--outfile=unused.out.js"]);
  assert.equal(readFileSync(join(project, "unused.out.js"), "utf8").trim(), "");
});

test("the installed package talks to a real server", { timeout: 60_000 }, async () => {
  const server = await startServer();
  writeFileSync(join(project, "talk.mjs"), TALK);
  const ws = pathToFileURL(join(ROOT, "node_modules/ws/wrapper.mjs")).href;
  const program = spawn(process.execPath, ["talk.mjs", server.url, server.tokens.alice, server.tokens.bob, ws], {
    cwd: project,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: program.stdout })) lines.push(line);
  assert.deepEqual(lines, [
    "alice sent 1 2 3",
    "bob got 1 one, 2 two, 3 three",
    "bob unread 3, then 0",
    "alice sees bob at 3",
    "bob after a reload: one, two, three; then 4 four",
    "club: alice bob",
    "refused: NOT_ALLOWED",
  ]);
});

/** Two users and one reload, with what it sees printed. */
const TALK = `
import { ErrorCode, connect, memoryStorage, messageBody } from "@im-server/client";
const [url, aliceToken, bobToken, ws] = process.argv.slice(2);
const webSocket = globalThis.WebSocket ?? (await import(ws)).WebSocket;
const open = (token, storage) => connect({ url, token, storage, webSocket });
const next = (client, name, wanted = () => true) => new Promise((resolve) => {
  const stop = client.on(name, (event) => { if (wanted(event)) { stop(); resolve(event); } });
});
const entries = (client, count) => new Promise((resolve) => {
  const got = [];
  const stop = client.on("entry", ({ entry }) => {
    got.push(entry.seq + " " + messageBody(entry).text);
    if (got.length === count) { stop(); resolve(got.join(", ")); }
  });
});

const storage = memoryStorage();
const alice = open(aliceToken);
let bob = open(bobToken, storage);
const got = entries(bob, 3);
const sent = await Promise.all(["one", "two", "three"].map((text) => alice.send({ user: "bob" }, text)));
console.log("alice sent", sent.map(({ seq }) => seq).join(" "));
console.log("bob got", await got);
const { conversation } = sent[0];
const before = bob.conversation(conversation).unread;
const receipt = next(alice, "receipt");
await bob.markRead(conversation, 3n);
console.log("bob unread " + before + ", then " + bob.conversation(conversation).unread);
console.log("alice sees bob at", (await receipt).readSeq.toString());

await bob.close();
await alice.send({ user: "bob" }, "four");
bob = open(bobToken, storage);
const fourth = await entries(bob, 1);
const kept = (await bob.storedEntries(conversation, { below: 4n })).map((entry) => messageBody(entry).text);
console.log("bob after a reload: " + kept.join(", ") + "; then " + fourth);

const group = await alice.createGroup({ name: "club", members: ["bob"] });
const { members } = await bob.listMembers(group.conversationId);
console.log("club:", members.map(({ userId }) => userId).join(" "));
await bob.removeMembers(group.conversationId, ["alice"]).catch(({ code }) => console.log("refused:", ErrorCode[code]));
await Promise.all([alice.close(), bob.close()]);
`;

interface Server {
  readonly url: string;
  readonly tokens: { readonly alice: string; readonly bob: string };
}

async function startServer(): Promise<Server> {
  const builtMs = (path: string) => statSync(path).mtimeMs;
  const built = ["release", "debug"].map((kind) => here(`../../../target/${kind}/im-server`)).filter(existsSync);
  const binary = process.env["IM_SERVER_BIN"] ?? built.sort((a, b) => builtMs(b) - builtMs(a))[0];
  assert.ok(binary !== undefined, "no server: build it with `cargo build --release`, or name one as IM_SERVER_BIN");
  const folder = mkdtempSync(join(tmpdir(), "im-server-"));
  const listen = { IM_LISTEN__TCP: "127.0.0.1:0", IM_LISTEN__WEBSOCKET: "127.0.0.1:0", IM_LISTEN__HTTP: "127.0.0.1:0" };
  const env = { ...process.env, ...listen, IM_STORE__FOLDER: join(folder, "data") };
  const child = spawn(binary, [], { env, stdio: ["ignore", "pipe", "inherit"] });
  const stop = async () => {
    await stopped(child);
    rmSync(folder, { recursive: true, force: true });
  };
  after(stop);
  const text: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    text.push(line);
    const url = /ws:\/\/\S+/.exec(text.join("\n"))?.[0];
    const token = (user: string) => new RegExp(`demo\\s+${user}\\s+(\\S+)`).exec(text.join("\n"))?.[1];
    const [alice, bob] = [token("alice"), token("bob")];
    if (url !== undefined && alice !== undefined && bob !== undefined) return { url, tokens: { alice, bob } };
  }
  return assert.fail(`the server named no WebSocket address and demo users:\n${text.join("\n")}`);
}

function stopped(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.on("exit", () => resolve());
    child.kill("SIGTERM");
  });
}
