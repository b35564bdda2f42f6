// A real server for one test file.
//
// In: IM_SERVER_BIN, or target/release/im-server. Out: a running process on ports and a data folder of its own; kill -9 and
// restart on the same. Always: the process and the folder are gone when the tests have ended.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

/** What the browser of these tests takes for this machine: a name, and an address as a phone in the same network types it. */
export const OTHER_NAME = "demo.test";
export const OTHER_ADDRESS = "192.0.2.5";

const START_TIMEOUT_MS = 20_000;
const PROBE_PAUSE_MS = 30;

const binary = resolve(process.env.IM_SERVER_BIN ?? join(import.meta.dirname, "../../../../target/release/im-server"));

/** Environment variables that override the server's defaults. */
export type Settings = Readonly<Record<string, string>>;

export class Server {
  readonly url: string;
  /** The same page by a name and by an address that are not loopback. */
  readonly otherUrl: string;
  readonly addressUrl: string;
  readonly websocket: string;
  readonly tcp: string;
  #environment: NodeJS.ProcessEnv;
  #folder: string;
  #process: ChildProcess | undefined;

  private constructor(folder: string, settings: Settings, listen: string, ports: readonly [number, number, number]) {
    const [tcp, websocket, http] = ports.map((port) => `127.0.0.1:${port}`);
    const [listenTcp, listenWebsocket, listenHttp] = ports.map((port) => `${listen}:${port}`);
    this.#folder = folder;
    this.url = `http://${http}/`;
    this.otherUrl = `http://${OTHER_NAME}:${ports[2]}/`;
    this.addressUrl = `http://${OTHER_ADDRESS}:${ports[2]}/`;
    this.websocket = `ws://${websocket}/ws`;
    this.tcp = `${tcp}`;
    this.#environment = {
      ...process.env,
      IM_STORE__FOLDER: join(folder, "data"),
      IM_LISTEN__TCP: listenTcp,
      IM_LISTEN__WEBSOCKET: listenWebsocket,
      IM_LISTEN__HTTP: listenHttp,
      IM_GATEWAY__ORIGINS: JSON.stringify([`http://${OTHER_NAME}:${ports[2]}`]),
      IM_LOG__LEVEL: "warn",
      ...settings,
    };
  }

  /** `listen`: an address of this machine. */
  static async start(settings: Settings, listen: string): Promise<Server> {
    const folder = await mkdtemp(join(tmpdir(), "im-browser-test-"));
    const server = new Server(folder, settings, listen, [await freePort(), await freePort(), await freePort()]);
    await server.start();
    return server;
  }

  async start(): Promise<void> {
    this.#process = spawn(binary, [], { env: this.#environment, stdio: ["ignore", "ignore", "inherit"] });
    const until = Date.now() + START_TIMEOUT_MS;
    while (!(await this.#isReady())) {
      if (this.#process.exitCode !== null || Date.now() > until) throw new Error(`${binary} did not become ready`);
      await pause(PROBE_PAUSE_MS);
    }
  }

  /** As a power cut would, for the process. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** As if it were set up anew: another store, another key. */
  async wipe(): Promise<void> {
    await rm(join(this.#folder, "data"), { recursive: true });
  }

  async stop(): Promise<void> {
    await this.#end("SIGKILL");
    await rm(this.#folder, { recursive: true, force: true });
  }

  token(user: string): string {
    return execFileSync(binary, ["token", "--user", user], { env: this.#environment, encoding: "utf8" }).trim();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const running = this.#process;
    this.#process = undefined;
    if (running === undefined || running.exitCode !== null) return;
    const ended = once(running, "exit");
    running.kill(signal);
    await ended;
  }

  async #isReady(): Promise<boolean> {
    return fetch(`${this.url}readyz`).then(
      (response) => response.ok,
      () => false,
    );
  }
}

/** Free a moment ago; nobody else on this machine is expected to take it. */
async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const address = probe.address();
  probe.close();
  await once(probe, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
