import { useEffect, useState } from "react";
import type { Doc } from "./convex/_generated/dataModel";
import { remaining, timeOfDay } from "./format";

const TITLES: Record<string, string> = {
  "emails:send_confirmation": "Confirmation",
  "emails:send_reminder": "Reminder",
  "orders:archive_order": "Archiving",
};

export function Job({ job }: { job: Doc<"_scheduled_functions"> }) {
  return (
    <li className={`job ${job.state.kind}`}>
      <span title={job.name}>{TITLES[job.name] ?? job.name}</span>
      <State job={job} />
      {job.state.kind === "failed" && <p className="error">{job.state.error?.split("\n")[0]}</p>}
    </li>
  );
}

function State({ job }: { job: Doc<"_scheduled_functions"> }) {
  const finished = job.completedTime === undefined ? "" : timeOfDay(job.completedTime);
  switch (job.state.kind) {
    case "pending":
      return <Countdown to={job.scheduledTime} />;
    case "inProgress":
      return <span>running</span>;
    case "success":
      return <span>done {finished}</span>;
    case "canceled":
      return <span>canceled {finished}</span>;
    case "failed":
      return <span>failed {finished}</span>;
  }
}

function Countdown({ to }: { to: number }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);
  return (
    <time className="countdown" role="timer" dateTime={new Date(to).toISOString()}>
      {to > now ? `in ${remaining(to - now)}` : "due"}
    </time>
  );
}
