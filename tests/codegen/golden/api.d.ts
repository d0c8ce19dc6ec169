/* eslint-disable */
/**
 * Written by `duly codegen` from the app 'tests.codegen.every'. Run it again rather than edit this.
 */

import type { FunctionReference, PaginationOptions, PaginationResult } from "convex/server";
import type { Address, Doc, Everything, EverythingInput, Id, LineInput, Order } from "./dataModel.js";

/** The public functions, to be passed to `useQuery`, `client.mutation` and the like. */
export declare const api: {
  admin: {
    users: {
      /**
       * Removes a user.
       *
       * Nothing is kept of them: *\/ ends no comment here.
       */
      remove: FunctionReference<"mutation", "public", { name: string }, null>;
    };
  };
  every: {
    /** Lists the names. */
    names: FunctionReference<"query", "public", Record<string, never>, Array<string>> & { count: FunctionReference<"query", "public", Record<string, never>, number> };
  };
  orders: {
    copy: FunctionReference<"mutation", "public", { order: Order }, Id<"orders">>;
    /** Places an order. */
    create: FunctionReference<
      "mutation",
      "public",
      { lines: Array<LineInput>; address: Address },
      Id<"orders">
    >;
    get: FunctionReference<
      "query",
      "public",
      { order_id: Id<"orders"> },
      Doc<"orders"> | null
    >;
    jobs: FunctionReference<
      "query",
      "public",
      Record<string, never>,
      Array<Doc<"_scheduled_functions">>
    >;
    log: FunctionReference<
      "query",
      "public",
      { event_id: Id<"archived_events"> | Id<"events"> },
      Array<Doc<"archived_events"> | Doc<"events">>
    >;
    note: FunctionReference<
      "query",
      "public",
      { note_id: string },
      Record<string, any> | null
    >;
    page: FunctionReference<
      "query",
      "public",
      { paginationOpts: PaginationOptions; status?: "open" | "paid" },
      PaginationResult<Doc<"orders">>
    >;
  };
  values: {
    defaults: FunctionReference<
      "mutation",
      "public",
      { required: string; optional?: number; nullable?: string | null },
      null
    >;
    /** Returns what it is given. */
    echo: FunctionReference<"query", "public", { value: EverythingInput }, Everything>;
    loose: FunctionReference<
      "action",
      "public",
      { anything: any; callback?: any | null },
      any
    >;
    /** Adds. */
    plain: FunctionReference<"action", "public", { numbers: Array<number> }, number>;
  };
};
