"""What other languages know of an app: TypeScript types, and an OpenAPI document."""

from duly.codegen._openapi import openapi
from duly.codegen._typescript import typescript

__all__ = ["openapi", "typescript"]
