"""TypeScript types and OpenAPI documents."""
