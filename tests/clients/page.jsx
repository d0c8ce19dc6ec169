// The page that `browser.mjs` shows: a channel of `chat.py`, with the hooks of `convex/react`.

import { ConvexHttpClient } from "convex/browser";
import { ConvexProvider, ConvexReactClient, useMutation, usePaginatedQuery, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const parameters = new URLSearchParams(location.search);
const server = parameters.get("server");
const channel = parameters.get("channel");

// For the test: all that was shown, and a client that is subject to the browser's rules on other origins.
window.shown = [];
window.channel = channel;
window.api = api;
window.http = new ConvexHttpClient(server);

function History() {
  const messages = useQuery(api.chat.history, { channel });
  const [body, setBody] = useState("");
  const send = useMutation(api.chat.send).withOptimisticUpdate((store, { body }) => {
    const before = store.getQuery(api.chat.history, { channel });
    if (before !== undefined) {
      store.setQuery(api.chat.history, { channel }, [...before, { _id: "sending", body }]);
    }
  });
  useEffect(() => {
    if (messages !== undefined) window.shown.push(messages.map((message) => message.body));
  }, [messages]);
  const submit = (event) => {
    event.preventDefault();
    send({ channel, body });
    setBody("");
  };
  return (
    <form onSubmit={submit}>
      <ul id="history">{messages?.map(({ _id, body }) => <li key={_id}>{body}</li>)}</ul>
      <input id="body" value={body} onChange={(event) => setBody(event.target.value)} />
      <button id="send">Send</button>
    </form>
  );
}

function Pages() {
  const { results, status, loadMore } = usePaginatedQuery(api.chat.pages, { channel }, { initialNumItems: 4 });
  return (
    <section>
      <ul id="pages">{results.map(({ _id, body }) => <li key={_id}>{body}</li>)}</ul>
      <button id="more" onClick={() => loadMore(4)}>{status}</button>
    </section>
  );
}

createRoot(document.getElementById("root")).render(
  <ConvexProvider client={new ConvexReactClient(server)}>
    <History />
    <Pages />
  </ConvexProvider>,
);
