import { useMutation, useQuery } from "convex/react";
import { type FormEvent, useState } from "react";
import { api } from "./convex/_generated/api";
import { money, reasonOf } from "./format";
import { PLACING } from "./OrderCard";

export function PlaceOrder() {
  const prices = useQuery(api.orders.list_prices, {});
  const [email, setEmail] = useState("ada@example.com");
  const [items, setItems] = useState<string[]>(["tea"]);
  const [refusal, setRefusal] = useState("");

  // Shown at once; what the server says takes its place, or nothing if it refuses.
  const place = useMutation(api.orders.create_order).withOptimisticUpdate((store, { email, items }) => {
    const orders = store.getQuery(api.orders.list_orders, {}) ?? [];
    const prices = store.getQuery(api.orders.list_prices, {}) ?? {};
    const total_cents = items.reduce((sum, item) => sum + (prices[item] ?? 0), 0);
    const order = { _id: PLACING, _creationTime: Date.now(), email, items, total_cents };
    store.setQuery(api.orders.list_orders, {}, [
      ...orders,
      { ...order, status: "open", reminder_id: null, job_ids: [] },
    ]);
  });

  async function submit(event: FormEvent) {
    event.preventDefault();
    setRefusal("");
    try {
      await place({ email, items });
    } catch (error) {
      setRefusal(reasonOf(error));
    }
  }

  function choose(item: string, chosen: boolean) {
    setItems(chosen ? [...items, item] : items.filter((other) => other !== item));
  }

  return (
    <form onSubmit={submit} aria-labelledby="place">
      <h2 id="place">A new order</h2>
      <label className="field">
        E-mail
        <input
          type="email"
          name="email"
          autoComplete="email"
          required
          value={email}
          onChange={(event) => setEmail(event.target.value)}
        />
      </label>
      <fieldset>
        <legend>Items</legend>
        {Object.entries({ ...prices, unobtainium: undefined }).map(([item, cents]) => (
          <label key={item} className="item">
            <input
              type="checkbox"
              name={item}
              checked={items.includes(item)}
              onChange={(event) => choose(item, event.target.checked)}
            />
            <span>{item}</span>
            <span className="quiet">{cents === undefined ? "sold out" : money(cents)}</span>
          </label>
        ))}
      </fieldset>
      <button className="primary">Place the order</button>
      <p role="alert">{refusal}</p>
    </form>
  );
}
