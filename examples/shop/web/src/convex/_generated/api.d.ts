/* eslint-disable */
/**
 * Written by `duly codegen` from the app 'examples.shop'. Run it again rather than edit this.
 */

import type { FunctionReference } from "convex/server";
import type { Doc, Id } from "./dataModel.js";

/** The public functions, to be passed to `useQuery`, `client.mutation` and the like. */
export declare const api: {
  orders: {
    /** Cancels the order, and what is still to happen to it. */
    cancel_order: FunctionReference<"mutation", "public", { order_id: Id<"orders"> }, null>;
    /** Stores the order; its mail, its reminder and its archiving are scheduled in the same transaction. */
    create_order: FunctionReference<
      "mutation",
      "public",
      { email: string; items: Array<string> },
      Id<"orders">
    >;
    get_order: FunctionReference<
      "query",
      "public",
      { order_id: Id<"orders"> },
      Doc<"orders"> | null
    >;
    /** The scheduled functions, in the order they were scheduled. */
    list_jobs: FunctionReference<
      "query",
      "public",
      Record<string, never>,
      Array<Doc<"_scheduled_functions">>
    >;
    /** The scheduled functions of an order: each for a week after it has finished. */
    list_jobs_of: FunctionReference<
      "query",
      "public",
      { order_id: Id<"orders"> },
      Array<Doc<"_scheduled_functions">>
    >;
    list_orders: FunctionReference<
      "query",
      "public",
      { status?: "open" | "paid" | "canceled" | "archived" | null },
      Array<Doc<"orders">>
    >;
    /** What there is to order, and its price in cents. */
    list_prices: FunctionReference<
      "query",
      "public",
      Record<string, never>,
      Record<string, number>
    >;
    list_stamps: FunctionReference<
      "query",
      "public",
      { order_id: Id<"orders"> },
      Array<Doc<"stamps">>
    >;
    /** Marks the order as paid; nobody is to be reminded any more. */
    pay_order: FunctionReference<"mutation", "public", { order_id: Id<"orders"> }, null>;
  };
};
