import { useMutation, useQuery } from "convex/react";
import { useState } from "react";
import { api } from "./convex/_generated/api";
import type { Doc, Id } from "./convex/_generated/dataModel";
import { money, reasonOf } from "./format";
import { Job } from "./Job";

/** The id of an order that the server has not answered for. */
export const PLACING = "placing" as Id<"orders">;

export function OrderCard({ order }: { order: Doc<"orders"> }) {
  const placing = order._id === PLACING;
  const jobs = useQuery(api.orders.list_jobs_of, placing ? "skip" : { order_id: order._id });
  const pay = useMutation(api.orders.pay_order);
  const cancel = useMutation(api.orders.cancel_order);
  const [refusal, setRefusal] = useState("");

  async function change(call: typeof pay | typeof cancel) {
    try {
      await call({ order_id: order._id });
      setRefusal("");
    } catch (error) {
      setRefusal(reasonOf(error));
    }
  }

  return (
    <li className="order" aria-busy={placing}>
      <div className="line">
        <h3>{order.items.join(", ") || "nothing"}</h3>
        <strong>{money(order.total_cents)}</strong>
      </div>
      <div className="line">
        <span className="quiet">{order.email}</span>
        <span className={`badge ${order.status}`}>{placing ? "placing …" : order.status}</span>
      </div>
      {placing || (
        <ul className="jobs" aria-label="Scheduled functions">
          {jobs?.map((job) => <Job key={job._id} job={job} />)}
        </ul>
      )}
      {order.status === "open" && (
        <div className="actions">
          <button disabled={placing} onClick={() => change(pay)}>
            Mark as paid
          </button>
          <button disabled={placing} onClick={() => change(cancel)}>
            Cancel order
          </button>
        </div>
      )}
      <p role="alert">{refusal}</p>
    </li>
  );
}
