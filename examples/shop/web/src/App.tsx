import { useConvexConnectionState, useQuery } from "convex/react";
import { api } from "./convex/_generated/api";
import { OrderCard } from "./OrderCard";
import { PlaceOrder } from "./PlaceOrder";

export function App() {
  const orders = useQuery(api.orders.list_orders, {});
  return (
    <>
      <header>
        <h1>The shop</h1>
        <Connection />
      </header>
      <main>
        <PlaceOrder />
        <section aria-labelledby="orders">
          <h2 id="orders">Orders</h2>
          {orders === undefined && <p className="quiet">Loading …</p>}
          {orders?.length === 0 && <p className="quiet">None yet. Place one, and see what is scheduled for it.</p>}
          <ol className="orders">
            {orders?.toReversed().map((order) => <OrderCard key={order._id} order={order} />)}
          </ol>
        </section>
      </main>
    </>
  );
}

function Connection() {
  const { isWebSocketConnected, hasEverConnected } = useConvexConnectionState();
  const state = isWebSocketConnected ? "live" : hasEverConnected ? "reconnecting" : "connecting";
  return (
    <p role="status" className={`connection ${state}`}>
      {state}
    </p>
  );
}
