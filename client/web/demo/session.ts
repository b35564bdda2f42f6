// One signed-in person in this tab.
//
// In: an identity. Out: the client, with its storage and its tokens. Always: unsent messages outlive a reload (IndexedDB, one
// database per device); a server that was set up anew in the meantime, and so refuses the old token, is asked for its own.
import { type Client, CloseCode, connect, indexedDbStorage } from "@im-server/client";
import { tabDevice } from "@im-server/client/tab-device";
import { fetchDemo } from "./demo-users.js";
import type { Identity } from "./sign-in.js";

export async function startSession(identity: Identity, websocket: string): Promise<Client> {
  const { user, isDemoUser } = identity;
  const device = identity.device ?? (await tabDevice(user));
  const storage = indexedDbStorage(`im-demo/${user}/${device}`);
  const tokens = new DemoTokens(identity);
  const token = isDemoUser ? () => tokens.next() : identity.token;
  const client = connect({ url: websocket, user, device, token, storage, history: "from-now" });
  client.on("state", ({ name, code }) => {
    const isRefused = code === CloseCode.BAD_TOKEN || code === CloseCode.TOKEN_EXPIRED;
    if (isDemoUser && name === "closed" && isRefused) void tokens.mend(client);
  });
  return client;
}

/** The tokens of a demo user: the one that came with the page first; after that, what the server gives out then. */
class DemoTokens {
  #identity: Identity;
  /** The last one that was handed to the client. */
  #used = "";

  constructor(identity: Identity) {
    this.#identity = identity;
  }

  async next(): Promise<string> {
    this.#used = this.#used === "" ? this.#identity.token : await this.#fresh();
    return this.#used;
  }

  /** Signs in again if the server gives out another token than the one it refused. */
  async mend(client: Client): Promise<void> {
    const refused = this.#used;
    const fresh = await this.#fresh().catch(() => refused);
    if (fresh === refused) return;
    this.#used = fresh;
    client.reconnect(fresh);
  }

  async #fresh(): Promise<string> {
    const demo = await fetchDemo();
    return demo.users.find(({ user }) => user === this.#identity.user)?.token ?? this.#used;
  }
}
