import { ConvexError } from "convex/values";

const MONEY = new Intl.NumberFormat(undefined, { style: "currency", currency: "EUR" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

const REASONS: Record<string, string> = {
  nothing_ordered: "Choose something first.",
  sold_out: "It is sold out: nothing was ordered, no mail was sent.",
  no_such_order: "There is no such order any more.",
};

export const money = (cents: number): string => MONEY.format(cents / 100);

export const timeOfDay = (ms: number): string => TIME.format(ms);

/** `2 d 23:59:58`, or `4:05` when it is less than an hour. */
export function remaining(ms: number): string {
  const seconds = Math.ceil(ms / 1_000);
  const days = Math.floor(seconds / 86_400);
  const hours = Math.floor(seconds / 3_600) % 24;
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60];
  if (days > 0 || hours > 0) parts.unshift(hours);
  const [first, ...rest] = parts;
  const clock = [first, ...rest.map((part) => String(part).padStart(2, "0"))].join(":");
  return days > 0 ? `${days} d ${clock}` : clock;
}

/** Why the server refused: what a function raised as `duly.AppError` reaches the page as the data of a ConvexError. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof ConvexError)) return "Something went wrong. Please try again.";
  const { code } = error.data as { code: string };
  return REASONS[code] ?? `The order is ${code}.`;
}
