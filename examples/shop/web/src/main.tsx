import { ConvexProvider, ConvexReactClient } from "convex/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./shop.css";

// The address may be a path on the server that this page is from.
const client = new ConvexReactClient(new URL(import.meta.env.VITE_DULY_URL, location.href).href);

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <ConvexProvider client={client}>
      <App />
    </ConvexProvider>
  </StrictMode>,
);
