"""The chat in projects of other frameworks, as docs/clients.md shows it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.clients.chat import app, size


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    async with app:
        yield


# FastAPI: a route of its own calls functions, too.

fastapi_site = FastAPI(lifespan=lifespan)


@fastapi_site.get("/size")
async def fastapi_size(channel: str) -> int:
    return await app.query(size, channel)


fastapi_site.mount("/duly", app.asgi())
# Last, for clients that can't be given a path: the routes of the project come first.
fastapi_site.mount("/", app.asgi())


# Django knows neither lifespans nor WebSockets: Starlette stands in front of it.


async def django_size(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"%d" % await app.query(size, str(request.GET["channel"])))


urlpatterns = [path("size", django_size)]
settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__)
django.setup()
django_site = Starlette(routes=[Mount("/duly", app.asgi()), Mount("/", get_asgi_application())], lifespan=lifespan)
