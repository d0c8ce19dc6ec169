// The npm clients as a process: commands come in as lines of JSON, answers and events go out as lines of JSON.
//
//   node driver.mjs FOLDER        FOLDER has the node_modules
//
//   in   {"id": 1, "command": "mutation", "client": 0, "path": "chat:send", "args": {…}}
//   out  {"id": 1, "value": …} or {"id": 1, "error": {"message": "…", "data"?: …}}
//   out  {"event": 7, "value": …} or {"event": 7, "error": …}    what a subscription was told
//   out  {"log": "…"}                                             what the client would write to the console
//   out  {"uncaught": "…"}                                        what the client threw where nobody could catch it
//
// Values that JSON does not have are {"$": kind, "text": …}; see values.py.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/`);
const { ConvexClient, ConvexHttpClient } = require("convex/browser");
const { makeFunctionReference } = require("convex/server");

const clients = new Map();
const subscriptions = new Map();

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const log = (...words) => say({ log: words.map(String).join(" ") });
const logger = { log, warn: log, error: log, logVerbose: log };
const failure = (error) => ({
  message: error.message,
  ...("data" in error ? { data: encode(error.data) } : {}),
});

const commands = {
  open({ client, url, options }) {
    clients.set(client, new ConvexClient(url, { logger, ...options }));
  },
  openHttp({ client, url }) {
    clients.set(client, new ConvexHttpClient(url, { logger }));
  },
  async close({ client }) {
    await clients.get(client).close();
  },

  query: ({ client, path, args }) => call(client, "query", path, args),
  consistentQuery: ({ client, path, args }) => call(client, "consistentQuery", path, args),
  action: ({ client, path, args }) => call(client, "action", path, args),
  mutation: ({ client, path, args, appends }) =>
    call(client, "mutation", path, args, appends && { optimisticUpdate: (store) => append(store, appends) }),

  subscribe({ client, subscription, path, args }) {
    const ended = clients.get(client).onUpdate(
      makeFunctionReference(path),
      decode(args),
      (value) => say({ event: subscription, value: encode(value) }),
      (error) => say({ event: subscription, error: failure(error) }),
    );
    subscriptions.set(subscription, { ended });
  },
  paginate({ client, subscription, path, args, pageSize }) {
    const ended = clients.get(client).onPaginatedUpdate_experimental(
      makeFunctionReference(path),
      decode(args),
      { initialNumItems: pageSize },
      ({ results, status, loadMore }) => {
        subscriptions.get(subscription).loadMore = loadMore;
        say({ event: subscription, value: { results: encode(results), status } });
      },
      (error) => say({ event: subscription, error: failure(error) }),
    );
    subscriptions.set(subscription, { ended });
  },
  loadMore: ({ subscription, count }) => subscriptions.get(subscription).loadMore(count),
  unsubscribe({ subscription }) {
    subscriptions.get(subscription).ended();
  },

  // The tokens are handed out in turn, and then none; both that and what the client makes of it are events.
  setAuth({ client, subscription, tokens }) {
    clients.get(client).setAuth(
      async ({ forceRefreshToken }) => {
        say({ event: subscription, value: forceRefreshToken ? "asked for a fresh token" : "asked for a token" });
        return tokens.shift() ?? null;
      },
      (authenticated) => say({ event: subscription, value: authenticated ? "authenticated" : "not authenticated" }),
    );
  },
  signIn({ client, token }) {
    const own = clients.get(client);
    own.setAuth(own instanceof ConvexHttpClient ? token : async () => token);
  },
  signOut({ client }) {
    const own = clients.get(client);
    (own instanceof ConvexHttpClient ? own : own.client).clearAuth();
  },
  setAdminKey({ client, key, identity }) {
    clients.get(client).setAdminAuth(key, identity ?? undefined);
  },

  state({ client }) {
    const { timeOfOldestInflightRequest, ...state } = clients.get(client).connectionState();
    return state;
  },
};

async function call(client, kind, path, args, ...options) {
  return encode(await clients.get(client)[kind](makeFunctionReference(path), decode(args), ...options));
}

function append(store, { path, args, value }) {
  const query = makeFunctionReference(path);
  const before = store.getQuery(query, decode(args));
  if (before !== undefined) {
    store.setQuery(query, decode(args), [...before, decode(value)]);
  }
}

// --- values ---------------------------------------------------------------------------------------------------------

function encode(value) {
  if (value === undefined) throw new Error("a client handed out undefined");
  if (typeof value === "bigint") return { $: "bigint", text: String(value) };
  if (Object.is(value, -0)) return { $: "number", text: "-0" };
  if (typeof value === "number" && !Number.isFinite(value)) return { $: "number", text: String(value) };
  if (value instanceof ArrayBuffer) return { $: "bytes", text: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(encode);
  return isObject(value) ? mapFields(value, encode) : value;
}

function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (!isObject(value)) return value;
  if (value.$ === "bigint") return BigInt(value.text);
  if (value.$ === "number") return Number(value.text);
  if (value.$ === "bytes") return new Uint8Array(Buffer.from(value.text, "base64")).buffer;
  return mapFields(value, decode);
}

function isObject(value) {
  return typeof value === "object" && value !== null;
}

function mapFields(value, change) {
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, change(field)]));
}

// --- the process ----------------------------------------------------------------------------------------------------

process.on("uncaughtException", (error) => say({ uncaught: error.stack ?? String(error) }));

for await (const line of createInterface({ input: process.stdin })) {
  const { id, command, ...parameters } = JSON.parse(line);
  // Not awaited: what takes long must not hold up what comes after it.
  Promise.resolve()
    .then(() => commands[command](parameters))
    .then(
      (value) => say({ id, value: value ?? null }),
      (error) => say({ id, error: failure(error) }),
    );
}
process.exit();
