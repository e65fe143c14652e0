// The page of `whisper dev`. Everything of a notification is text, never markup.
import { type Notification, type State, WhisperClient, WhisperError } from "../../../../gateway/sdk/typescript/src/index.js";

const longestList = 200;

const words: Record<State, string> = {
  idle: "not connected",
  connecting: "connecting…",
  open: "connected",
  waiting: "waiting to reconnect",
  draining: "about to reconnect",
  closed: "not connected",
};

function find<E extends Element>(selector: string, within: ParentNode = document): E {
  return within.querySelector<E>(selector)!;
}

const state = find<HTMLElement>("#state");
const list = find<HTMLOListElement>("#list");
const user = find<HTMLInputElement>("#user");
const button = find<HTMLButtonElement>("#connect");
const readAll = find<HTMLButtonElement>("#read-all");

let client: WhisperClient | undefined;
/** When what this page asked for was asked for. */
const asked = new Map<string, number>();

async function post(path: string, body: unknown): Promise<Record<string, string>> {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (!answer.ok) {
    throw new Error((await answer.text()).trim());
  }
  return (await answer.json()) as Record<string, string>;
}

function connect(name: string): void {
  client = new WhisperClient({
    url: "/v1/socket",
    token: async () => (await post("/dev/token", { user: name }))["token"]!,
    onNotification: show,
    onRetracted: retract,
    onState: (now, error) => {
      state.dataset["state"] = now;
      state.textContent = now === "open" ? `connected as ${name}` : words[now];
      say("#sent", "");
      say("#who-error", now === "waiting" || now === "closed" ? reason(error) : "");
    },
  });
  void client.connect();
  user.readOnly = true;
  button.textContent = "Disconnect";
}

function disconnect(): void {
  client?.close();
  client = undefined;
  user.readOnly = false;
  button.textContent = "Connect";
}

function reason(error: WhisperError | undefined): string {
  return error === undefined ? "" : error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

function show(n: Notification): void {
  const card = find<HTMLTemplateElement>("#card").content.cloneNode(true) as DocumentFragment;
  const item = find<HTMLElement>(".card", card);
  item.dataset["lane"] = n.lane;
  item.dataset["id"] = n.id;
  find(".lane", item).textContent = n.lane;
  find(".category", item).textContent = n.category;
  find("h3", item).textContent = n.title ?? "";
  find(".text", item).textContent = n.body ?? "";
  const at = new Date(n.at);
  find<HTMLTimeElement>("time", item).dateTime = n.at;
  find("time", item).textContent = at.toLocaleTimeString();
  find(".latency", item).textContent = latency(n.id, at);
  if (n.url !== undefined && /^https?:/.test(n.url)) {
    find<HTMLAnchorElement>("a", item).href = n.url;
  }
  find<HTMLButtonElement>(".read", item).addEventListener("click", () => markRead([item]));
  list.prepend(card);
  while (list.children.length > longestList) {
    list.lastElementChild!.remove();
  }
  count();
}

function latency(id: string, at: Date): string {
  const began = asked.get(id);
  if (began !== undefined) {
    asked.delete(id);
    return `${(performance.now() - began).toFixed(1)} ms after Send`;
  }
  const ms = Date.now() - at.getTime();
  return ms > 60_000 ? "asked for earlier" : `${Math.max(0, ms)} ms after acceptance`;
}

function markRead(items: HTMLElement[]): void {
  client?.read(...items.map((item) => item.dataset["id"]!));
  for (const item of items) {
    item.classList.add("is-read");
    const done = find<HTMLButtonElement>(".read", item);
    done.disabled = true;
    done.textContent = "Read";
  }
  count();
}

function unread(): HTMLElement[] {
  return [...list.querySelectorAll<HTMLElement>(".card:not(.is-read)")];
}

function retract(id: string): void {
  for (const item of list.querySelectorAll<HTMLElement>(".card")) {
    if (item.dataset["id"] === id) {
      item.classList.add("is-gone");
      find(".text", item).textContent = "Taken back by the sender.";
    }
  }
}

function count(): void {
  const n = unread().length;
  find("#unread").textContent = list.children.length === 0 ? "" : n === 0 ? "all read" : `${n} unread`;
  find<HTMLElement>("#empty").hidden = list.children.length > 0;
  readAll.disabled = n === 0;
}

function say(where: string, text: string): void {
  find(where).textContent = text;
}

find("#who").addEventListener("submit", (event) => {
  event.preventDefault();
  if (client === undefined) {
    connect(user.value.trim());
  } else {
    disconnect();
  }
});

user.addEventListener("input", () => (find("#empty-user").textContent = user.value || "mona"));

readAll.addEventListener("click", () => markRead(unread()));

for (const sample of document.querySelectorAll<HTMLButtonElement>(".samples button")) {
  sample.addEventListener("click", () => {
    find<HTMLInputElement>("#title").value = sample.dataset["title"]!;
    find<HTMLTextAreaElement>("#body").value = sample.dataset["body"]!;
    find<HTMLInputElement>(`input[value="${sample.dataset["lane"]}"]`).checked = true;
  });
}

find("#send").addEventListener("submit", (event) => {
  event.preventDefault();
  void send(new FormData(event.target as HTMLFormElement), user.value.trim());
});

async function send(form: FormData, to: string): Promise<void> {
  const id = "page-" + crypto.getRandomValues(new Uint32Array(2)).join("-");
  asked.set(id, performance.now());
  say("#send-error", "");
  say("#sent", "");
  try {
    await post("/dev/send", { id, user: to, lane: form.get("lane"), title: form.get("title"), body: form.get("body") });
    say("#sent", client?.state === "open" ? "" : `Sent: it waits until ${to} connects.`);
  } catch (why) {
    asked.delete(id);
    say("#send-error", why instanceof Error ? why.message : String(why));
  }
}
