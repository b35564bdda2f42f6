// One signed-in person in this tab.
//
// In: an identity. Out: the client, its storage, a fresh token when one is needed. Always: unsent messages outlive a reload
// (IndexedDB, one database per device); what a restarted server gave out anew is fetched anew.
import { CloseCode, connect, indexedDbStorage, type Client } from "@im-server/client";
import { fetchDemo } from "./demo-users.js";
import { deviceOf } from "./device.js";
import type { Identity } from "./sign-in.js";

export async function startSession(identity: Identity): Promise<Client> {
  const { user, websocket } = identity;
  const device = identity.device ?? (await deviceOf(user));
  const token = identity.isDemoUser ? demoToken(identity) : identity.token;
  const storage = indexedDbStorage(`im-demo/${user}/${device}`);
  return connect({ url: websocket, user, device, token, storage, history: "from-now" });
}

/** Mends a connection that stays closed as far as this page can: by signing in again. */
export function signInAgain(client: Client): void {
  client.reconnect();
}

/** True where a server that was set up anew would not know the token any more, and gives out a new one. */
export function needsFreshToken(code: number | undefined): boolean {
  return code === CloseCode.BAD_TOKEN || code === CloseCode.TOKEN_EXPIRED;
}

/** The token that came with the page first; after that, whatever the server gives out now. */
function demoToken(identity: Identity): () => Promise<string> {
  let isFirst = true;
  return async () => {
    if (isFirst) {
      isFirst = false;
      return identity.token;
    }
    const demo = await fetchDemo();
    return demo?.users.find(({ user }) => user === identity.user)?.token ?? identity.token;
  };
}
