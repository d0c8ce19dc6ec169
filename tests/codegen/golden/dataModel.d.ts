/* eslint-disable */
/**
 * Written by `duly codegen` from the app 'tests.codegen.every'. Run it again rather than edit this.
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
  archived_events: {
    _id: Id<"archived_events">;
    _creationTime: number;
    order_id: Id<"orders">;
    job_id: Id<"_scheduled_functions"> | null;
  };
  events: {
    _id: Id<"events">;
    _creationTime: number;
    order_id: Id<"orders">;
    job_id: Id<"_scheduled_functions"> | null;
  };
  notes: { _id: Id<"notes">; _creationTime: number; [field: string]: any };
  /** What a customer has ordered. */
  orders: {
    _id: Id<"orders">;
    _creationTime: number;
    lines: Array<Line>;
    status: "open" | "paid";
    address: Address;
    due?: string;
  };
};

export type Address = { street: string; city: string };

/** A name that is TypeScript's, but for the underscore. */
export type Any_ = { given: boolean };

export type Box_Color_ = { content: Color };

export type Box_int_ = { content: number };

export type Color = "red" | "green";

export type Everything = {
  nothing: null;
  anything: any;
  truth: boolean;
  whole: number;
  real: number;
  big: bigint;
  text: string;
  data: ArrayBuffer;
  moment: string;
  day: string;
  span: string;
  key: string;
  price: string;
  color: Color;
  level: Level;
  choice: "a" | 1 | true | null;
  maybe?: number | null;
  either: number | string | Array<ArrayBuffer>;
  many: Array<Array<number>>;
  unique: Array<string>;
  pair: [number, string];
  row: Array<number>;
  point: Point;
  by_name: Record<string, Array<number>>;
  by_key: Record<string, number>;
  tree: Tree;
  linked: Linked;
  named: Any_;
  id: Id_;
  model: Model;
  box: Box_int_;
  boxes: Array<Box_Color_>;
};

export type EverythingInput = {
  nothing: null;
  anything: any;
  truth: boolean;
  whole: number;
  real: number;
  big: bigint;
  text: string;
  data: ArrayBuffer;
  moment: string;
  day: string;
  span: string;
  key: string;
  price: string;
  color: Color;
  level: Level;
  choice: "a" | 1 | true | null;
  maybe?: number | null;
  either: number | string | Array<ArrayBuffer>;
  many: Array<Array<number>>;
  unique: Array<string>;
  pair: [number, string];
  row: Array<number>;
  point: Point;
  by_name: Record<string, Array<number>>;
  by_key: Record<string, number>;
  tree: TreeInput;
  linked: Linked;
  named: Any_;
  id: Id_;
  model: ModelInput;
  box: Box_int_;
  boxes: Array<Box_Color_>;
};

/** A name that the files have already. */
export type Id_ = { given: boolean };

export type Level = 1 | 2;

/** What is ordered, and how often. */
export type Line = { item: string; count: number };

/** What is ordered, and how often. */
export type LineInput = { item: string; count?: number };

export type Linked = { value: number; next: Linked | null };

export type Model = {
  /** In any time zone. */
  when: string;
  price: string;
  "odd-name": string;
};

export type ModelInput = {
  /** In any time zone. */
  when: string;
  price?: string;
  "odd-name"?: string;
};

/** What a customer has ordered. */
export type Order = {
  lines: Array<LineInput>;
  status: "open" | "paid";
  address: Address;
  due?: string;
};

export type Point = [number, number, string?];

/** The state of a scheduled function; `error` is there when it failed. */
export type ScheduledFunctionState = {
  kind: "pending" | "inProgress" | "success" | "failed" | "canceled";
  error?: string;
};

/** A tree of names. */
export type Tree = { name: string; children: Array<Tree> };

/** A tree of names. */
export type TreeInput = { name: string; children?: Array<TreeInput> };
