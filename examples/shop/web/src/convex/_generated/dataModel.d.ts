/* eslint-disable */
/**
 * Written by `duly codegen` from the app 'examples.shop'. Run it again rather than edit this.
 */

import type { GenericId } from "convex/values";

/** The name of a table. */
export type TableNames = keyof Documents;

/** The id of a document, to be passed where a function takes one of this table. */
export type Id<TableName extends TableNames> = GenericId<TableName>;

/** A document of a table, as functions return it. */
export type Doc<TableName extends TableNames> = Documents[TableName];

type Documents = {
  /** A document of the system table `_scheduled_functions`. All times are milliseconds since the Unix epoch. */
  _scheduled_functions: {
    _id: Id<"_scheduled_functions">;
    _creationTime: number;
    name: string;
    args: Array<Record<string, any>>;
    scheduledTime: number;
    state: ScheduledFunctionState;
    attempts: number;
    completedTime?: number;
    startedTime?: number;
    nextAttemptTime?: number;
    pendingReason?: string;
  };
  orders: {
    _id: Id<"orders">;
    _creationTime: number;
    email: string;
    items: Array<string>;
    total_cents: number;
    status: "open" | "paid" | "canceled" | "archived";
    reminder_id: Id<"_scheduled_functions"> | null;
    job_ids: Array<Id<"_scheduled_functions">>;
  };
  /** Which scheduled function stamped which order: a ledger, to count effects by. */
  stamps: {
    _id: Id<"stamps">;
    _creationTime: number;
    order_id: Id<"orders">;
    stamped_by: Id<"_scheduled_functions"> | null;
  };
};

/** The state of a scheduled function; `error` is there when it failed. */
export type ScheduledFunctionState = {
  kind: "pending" | "inProgress" | "success" | "failed" | "canceled";
  error?: string;
};
