// The page: who this tab is, then the views around one client.
//
// In: the address, /demo.json. Out: the running page. Always: this is the one place that knows all parts; every change of the
// state renders every view, once.
import type { Client } from "@im-server/client";
import { ChatView } from "./chat.js";
import { ConnectionView } from "./connection.js";
import { ConversationList } from "./conversation-list.js";
import { type Demo, fetchDemo } from "./demo-users.js";
import { avatar, element, found } from "./element.js";
import { History } from "./history.js";
import { MembersView } from "./members.js";
import { NewGroup } from "./new-group.js";
import { Reading } from "./reading.js";
import { readRoute, type Target, writeRoute } from "./route.js";
import { startSession } from "./session.js";
import { askIdentity, forgetIdentity, keepIdentity, knownIdentity, tellProblem } from "./sign-in.js";
import { State } from "./state.js";
import { errorWords } from "./words.js";

async function main(): Promise<void> {
  const demo = await fetchDemo();
  const identity = knownIdentity(demo) ?? (await askIdentity(demo));
  keepIdentity(identity);
  run(await startSession(identity, demo.websocket), identity.user, demo);
}

function run(client: Client, me: string, demo: Demo): void {
  const people = demo.users.map(({ user }) => user);
  const app = found("app", HTMLElement);
  const notice = found("notice", HTMLElement);
  const noticeText = found("notice-text", HTMLElement);
  const go = (target: Target) => {
    location.hash = writeRoute(me, target);
  };

  const state = new State(client, me, render);
  tellIfNeverLive(state, demo.websocket);
  const past = new History(state);
  const members = new MembersView(state);
  const chat = new ChatView(state, past, people, () => members.show());
  const reading = new Reading(state, () => chat.scrolling.isAtEnd);
  const list = new ConversationList(state, people, go);
  const connection = new ConnectionView(state);
  new NewGroup(client, people, (conversation) => go({ conversation }));

  function render(): void {
    app.dataset.view = state.open === undefined ? "list" : "chat";
    notice.hidden = state.notice === "";
    if (noticeText.textContent !== state.notice) noticeText.textContent = state.notice;
    connection.render();
    chat.render();
    list.render(reading.current);
    members.render();
    past.preview();
    reading.look();
    const unread = state.unread(reading.current);
    document.title = `${unread > 0 ? `(${unread}) ` : ""}${me} · im-server`;
  }

  found("me", HTMLElement).replaceChildren(avatar(me), element("span", { class: "name" }, me));
  wireBar(state, me);
  showRoute(state, me);
  addEventListener("hashchange", () => showRoute(state, me));
  document.addEventListener("visibilitychange", () => state.change());
  app.hidden = false;
}

/** The page is there but its WebSocket is not: a closed port, or an origin that the server refuses. A browser tells no more. */
function tellIfNeverLive(state: State, websocket: string): void {
  const notice =
    `${websocket} does not answer. If that stays so: can its port be reached from here? ` +
    `And does the server's log say that it refuses this page?`;
  let isTold = false;
  const stop = state.client.on("state", ({ name }) => {
    if (name === "waiting" && !isTold) {
      isTold = true;
      state.tell(notice);
    } else if (name === "live") {
      stop();
      if (state.notice === notice) state.tell("");
    }
  });
}

/** The buttons that belong to no view. */
function wireBar(state: State, me: string): void {
  found("back", HTMLAnchorElement).addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", writeRoute(me));
    showRoute(state, me);
  });
  found("switch-user", HTMLButtonElement).addEventListener("click", () => {
    forgetIdentity();
    location.assign(location.pathname);
  });
  found("notice-close", HTMLButtonElement).addEventListener("click", () => state.tell(""));
  for (const button of document.querySelectorAll("[data-closes]")) {
    button.addEventListener("click", () => button.closest("dialog")?.close());
  }
}

/** Another user in the address is another person: the page starts again as that one. A dialog was about the chat before. */
function showRoute(state: State, me: string): void {
  for (const dialog of document.querySelectorAll<HTMLDialogElement>("dialog[open]")) dialog.close();
  const { user, target } = readRoute(location.hash);
  if (user !== me) location.reload();
  else if (target === undefined) state.closeChat();
  else state.openChat(target);
}

main().catch((error: unknown) => tellProblem(`This page could not start: ${errorWords(error)}`));
