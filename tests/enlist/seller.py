"""An app and a process that sells with it: `python -m tests.enlist.seller URL ITEM`.

It inserts a row and schedules in one transaction of SQLAlchemy's, says so, and goes on once it is told to.
"""

import sys

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import duly

app = duly.App(__name__)


@duly.internal_action
def post(ctx: duly.SyncActionCtx, item: str) -> None:
    print(f"posted {item}", flush=True)


def sell(url: str, item: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO invoices (item) VALUES (:item)"), {"item": item})
        duly.enlist(session, app).run_after(0, post, item=item)
        print("scheduled", flush=True)
        sys.stdin.readline()
    engine.dispose()
    print("committed", flush=True)


if __name__ == "__main__":
    sell(*sys.argv[1:])
