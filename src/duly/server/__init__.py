"""The app on the network: HTTP, and the WebSocket protocol of Convex clients."""
