"""duly: a durable, transactional function scheduler for Python."""

from duly import errors
from duly._app import App
from duly._call.context import ActionCtx, Auth, MutationCtx, QueryCtx, SyncActionCtx
from duly._call.database import UNSET, DatabaseReader, DatabaseWriter, created_at, id_of
from duly._call.decorators import action, internal_action, internal_mutation, internal_query, mutation, query
from duly._call.lazy import api, internal
from duly._call.query import Page, PaginationOptions, Query
from duly._call.scheduler import Scheduler, SyncScheduler
from duly._enlist import enlist
from duly._ground.ids import Id
from duly._ground.values import Int64
from duly._model.function import FunctionReference
from duly._model.identity import Identity
from duly._model.job import ScheduledFunction
from duly._model.provider import JWTProvider
from duly._model.ranges import gt, gte, lt, lte
from duly._model.schema import Table
from duly.errors import AppError, DulyError

__all__ = [
    "UNSET",
    "ActionCtx",
    "App",
    "AppError",
    "Auth",
    "DatabaseReader",
    "DatabaseWriter",
    "DulyError",
    "FunctionReference",
    "Id",
    "Identity",
    "Int64",
    "JWTProvider",
    "MutationCtx",
    "Page",
    "PaginationOptions",
    "Query",
    "QueryCtx",
    "ScheduledFunction",
    "Scheduler",
    "SyncActionCtx",
    "SyncScheduler",
    "Table",
    "action",
    "api",
    "created_at",
    "enlist",
    "errors",
    "gt",
    "gte",
    "id_of",
    "internal",
    "internal_action",
    "internal_mutation",
    "internal_query",
    "lt",
    "lte",
    "mutation",
    "query",
]
