// The browser of one test file, and the judge of its consoles.
//
// In: a server. Out: people, each in a browser profile of their own. Always: after each test every console error, warning and
// uncaught error that was not expected fails it. Expected is one thing that Chromium itself prints and no page can keep it from
// printing: while the network or the server is away, a WebSocket that could not be opened (filtered by its exact text and
// address, and only inside `away`).
import assert from "node:assert/strict";
import { after, afterEach, before } from "node:test";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { Person } from "./person.js";
import { OTHER_ADDRESS, OTHER_NAME, Server, type Settings } from "./server.js";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  `--host-resolver-rules=MAP ${OTHER_NAME} 127.0.0.1, MAP ${OTHER_ADDRESS} 127.0.0.1`,
];

export class Stage {
  readonly #settings: Settings;
  readonly #listen: string;
  #server: Server | undefined;
  #browser: Browser | undefined;
  #contexts: BrowserContext[] = [];
  #complaints: string[] = [];
  #foreign = new Set<string>();
  #isAway = false;

  constructor(settings: Settings, listen: string) {
    this.#settings = settings;
    this.#listen = listen;
  }

  get server(): Server {
    assert(this.#server !== undefined);
    return this.#server;
  }

  async open(): Promise<void> {
    this.#server = await Server.start(this.#settings, this.#listen);
    // A fresh profile in a temporary folder; contexts share nothing with each other.
    this.#browser = await chromium.launch({ executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium", args: FLAGS });
  }

  async close(): Promise<void> {
    await this.#browser?.close();
    await this.#server?.stop();
  }

  /** A person in a browser profile of their own, signed in. */
  async person(name: string, options: BrowserContextOptions = {}): Promise<Person> {
    const person = new Person(name, await this.page(options));
    await person.page.goto(`${this.server.url}#${name}`);
    await person.isLive();
    return person;
  }

  /** An empty page in a profile of its own. */
  async page(options: BrowserContextOptions = {}): Promise<Page> {
    assert(this.#browser !== undefined);
    const context = await this.#browser.newContext({ viewport: { width: 1100, height: 720 }, locale: "en-GB", ...options });
    this.#contexts.push(context);
    context.on("request", (request) => {
      const { url, otherUrl, addressUrl } = this.server;
      const isOurs = [url, otherUrl, addressUrl].some((ours) => request.url().startsWith(ours));
      if (!isOurs) this.#foreign.add(request.url());
    });
    context.on("weberror", (error) => this.#complaints.push(`uncaught: ${error.error().stack ?? error.error().message}`));
    context.on("console", (message) => {
      const isComplaint = message.type() === "error" || message.type() === "warning";
      const isExpected = this.#isAway && this.#isFailedWebSocket(message.text());
      if (isComplaint && !isExpected) this.#complaints.push(`${message.type()}: ${message.text()}`);
    });
    return context.newPage();
  }

  /** While `during` runs, WebSockets may fail to open. It ends with everyone live again. */
  async away(during: () => Promise<void>): Promise<void> {
    this.#isAway = true;
    await during();
    // What Chromium printed before comes before the answer to this.
    for (const context of this.#contexts) for (const page of context.pages()) await page.evaluate(() => document.title);
    this.#isAway = false;
  }

  async judge(): Promise<void> {
    for (const context of this.#contexts) await context.close();
    this.#contexts = [];
    const complaints = this.#complaints;
    this.#complaints = [];
    assert.deepEqual(complaints, [], "the console stays silent");
    assert.deepEqual([...this.#foreign], [], "nothing is asked of another host");
  }

  #isFailedWebSocket(text: string): boolean {
    return text.startsWith(`WebSocket connection to '${this.server.websocket}' failed: `);
  }
}

/** A stage for the tests of a file: opened before the first, judged after each, closed behind the last. */
export function stage(settings: Settings = {}, listen = "127.0.0.1"): Stage {
  const made = new Stage(settings, listen);
  before(() => made.open());
  afterEach(() => made.judge());
  after(() => made.close());
  return made;
}
