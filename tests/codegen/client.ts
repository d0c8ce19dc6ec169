// What a client does with the generated files. Every line marked so must be an error; every other must not.
import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { useMutation, usePaginatedQuery, useQuery } from "convex/react";
import type { FunctionReturnType } from "convex/server";
import { api } from "../convex/_generated/api";
import type { Doc, Everything, Id, Line } from "../convex/_generated/dataModel";

const http = new ConvexHttpClient("http://127.0.0.1:8000");
const client = new ConvexClient("http://127.0.0.1:8000");

export async function orders(): Promise<void> {
  const address = { street: "Long Lane", city: "York" };
  const id: Id<"orders"> = await http.mutation(api.orders.create, { lines: [{ item: "tea" }], address });
  const order: Doc<"orders"> | null = await http.query(api.orders.get, { order_id: id });
  if (order !== null) {
    const line: Line | undefined = order.lines[0];
    const count: number | undefined = line?.count;
    const status: "open" | "paid" = order.status;
    const due: string | undefined = order.due;
    const again: Id<"orders"> = order._id;
    const created: Date = new Date(order._creationTime);
    console.log(count, status, due, again, created);
  }
  client.onUpdate(api.orders.jobs, {}, (jobs) => jobs.map((job) => job.state.kind === "pending" && job.scheduledTime));

  // @ts-expect-error: a query is no mutation
  await http.mutation(api.orders.get, { order_id: id });
  // @ts-expect-error: it takes an id, not any string
  await http.query(api.orders.get, { order_id: "tea" });
  const log: Array<Doc<"events"> | Doc<"archived_events">> = await http.query(api.orders.log, {
    // @ts-expect-error: of another table
    event_id: id,
  });
  // @ts-expect-error: an argument is missing
  await http.mutation(api.orders.create, { lines: [] });
  // @ts-expect-error: an argument too many
  await http.query(api.orders.get, { order_id: id, also: 1 });
  // @ts-expect-error: a line has no field of this name
  await http.mutation(api.orders.create, { lines: [{ item: "tea", cups: 2 }], address });
  // @ts-expect-error: there is no such function
  await http.query(api.orders.lost, {});
  // @ts-expect-error: internal functions are not for clients
  await http.mutation(api.admin.users.forget, { name: "ann" });
  console.log(log);
}

export async function values(everything: Everything): Promise<void> {
  const { big, data, moment, point, choice }: Everything = await http.query(api.values.echo, { value: everything });
  const sum: bigint = big + 1n;
  const bytes: Uint8Array = new Uint8Array(data);
  const [x, y, label]: [number, number, string?] = point;
  const when: Date = new Date(moment);
  const one: "a" | 1 | true | null = choice;
  console.log(sum, bytes, x, y, label, when, one);
  await http.mutation(api.values.defaults, { required: "tea" });
  await http.mutation(api.values.defaults, { required: "tea", optional: 2, nullable: null });
  const nothing: null = await http.mutation(api.admin.users.remove, { name: "ann" });
  const added: FunctionReturnType<typeof api.values.plain> = 1 + (await http.action(api.values.plain, { numbers: [] }));
  const names: Array<string> = await http.query(api.every.names);
  const count: number = await http.query(api.every.names.count);
  console.log(nothing, added, names, count);

  // @ts-expect-error: a number is no bigint
  await http.query(api.values.echo, { value: { ...everything, big: 1 } });
  // @ts-expect-error: a Date is sent as a string
  await http.query(api.values.echo, { value: { ...everything, moment: when } });
  // @ts-expect-error: none of the colors
  await http.query(api.values.echo, { value: { ...everything, color: "blue" } });
  // @ts-expect-error: null and absent are two things
  await http.mutation(api.values.defaults, { required: "tea", optional: null });
}

export function Orders(id: Id<"orders">): string {
  const order: Doc<"orders"> | null | undefined = useQuery(api.orders.get, { order_id: id });
  const { results, loadMore } = usePaginatedQuery(api.orders.page, { status: "paid" }, { initialNumItems: 10 });
  const paid: Array<Doc<"orders">> = results;
  const copy = useMutation(api.orders.copy).withOptimisticUpdate((store, { order }) => {
    const jobs: Array<Doc<"_scheduled_functions">> | undefined = store.getQuery(api.orders.jobs, {});
    console.log(jobs, order.address.city);
  });
  loadMore(10);
  // @ts-expect-error: not paginated
  usePaginatedQuery(api.orders.get, { order_id: id }, { initialNumItems: 10 });
  return `${order?.status} ${paid.length} ${typeof copy}`;
}

export async function pages(): Promise<void> {
  const result = await http.query(api.orders.page, { paginationOpts: { numItems: 10, cursor: null }, status: "paid" });
  const order: Doc<"orders"> | undefined = result.page[0];
  const next: string = result.continueCursor;
  console.log(order, next, result.isDone);
  // @ts-expect-error: pagination takes options
  await http.query(api.orders.page, { status: "paid" });
}
