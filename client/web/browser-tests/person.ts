// A person at the page: what one sees and does there.
//
// In: a page of the browser. Out: actions and what is shown, in the words of the page. Always: everything goes through what a
// person can see, hear or press; waiting is for something to be shown, never for time to pass.
import type { BrowserContext, Locator, Page } from "playwright-core";

/** Until something is shown that has to be. Long, because a busy machine is no failure. */
const SHOWN_TIMEOUT_MS = 30_000;

export class Person {
  readonly name: string;
  readonly page: Page;
  readonly context: BrowserContext;

  constructor(name: string, page: Page) {
    this.name = name;
    this.page = page;
    this.context = page.context();
    page.setDefaultTimeout(SHOWN_TIMEOUT_MS);
  }

  async isLive(): Promise<void> {
    await this.connection("live");
  }

  async connection(words: string | RegExp): Promise<void> {
    await this.page.locator("#connection", { hasText: words }).waitFor();
  }

  /** The row of the list that stands for a user or a group. */
  row(name: string): Locator {
    return this.page.locator("#conversations li").filter({ has: this.page.locator(".name").getByText(name, { exact: true }) });
  }

  async unread(name: string, count: number): Promise<void> {
    if (count === 0) await this.row(name).locator(".badge").waitFor({ state: "detached" });
    else await this.row(name).locator(".badge", { hasText: String(count) }).waitFor();
  }

  async openRow(name: string): Promise<void> {
    await this.row(name).getByRole("button").click();
    await this.chatIsOpen(name);
  }

  async writeTo(user: string): Promise<void> {
    await this.page.getByRole("textbox", { name: "User id to write to" }).fill(user);
    await this.page.getByRole("button", { name: "Open", exact: true }).click();
    await this.chatIsOpen(user);
  }

  async chatIsOpen(name: string): Promise<void> {
    await this.page.locator("#chat-title").getByText(name, { exact: true }).waitFor();
  }

  /** Types into the open chat as a keyboard does. */
  async type(...texts: readonly string[]): Promise<void> {
    await this.page.getByRole("textbox", { name: "Message" }).focus();
    for (const text of texts) {
      await this.page.keyboard.insertText(text);
      await this.page.keyboard.press("Enter");
    }
  }

  message(text: string): Locator {
    return this.page.locator("#messages .message").filter({ has: this.page.locator(".text").getByText(text, { exact: true }) });
  }

  async sees(text: string): Promise<void> {
    await this.message(text).last().waitFor();
  }

  /** The status of an own message: sending, stored, read, failed. */
  async seesStatus(text: string, status: string): Promise<void> {
    await this.page.locator(`#messages .message[data-status="${status}"]`).filter({ hasText: text }).first().waitFor();
  }

  /** The texts of the open chat, from the first to the last that is shown. */
  texts(): Promise<string[]> {
    return this.page.locator("#messages .message .text").allTextContents();
  }

  async seesCount(count: number): Promise<void> {
    await this.page.waitForFunction((least) => document.querySelectorAll("#messages .message").length >= least, count);
  }

  /** No message waits for its answer any more. */
  async everythingIsStored(): Promise<void> {
    await this.page.waitForFunction(() => document.querySelector('#messages [data-status="sending"]') === null);
  }
}
