"""What a look at the text of a statement tells, on every engine."""

import pytest

from duly._store.user_sql import bare, check_statement
from duly.errors import SQLError


@pytest.mark.parametrize(
    ("statement", "placeholders"),
    [
        ("SELECT $1, $2, $1", 2),
        ("SELECT '$1', 'it''s $2', \"$3\"", 0),
        ("SELECT E'it\\'s $1', $1", 1),
        ("SELECT $$ $1 $$, $a$ $2 $$ $3 $a$, $1", 1),
        ("SELECT 1 -- $1\n, $1", 1),
        ("SELECT /* $1 \n $2 */ $1 /* unfinished $2", 1),
        ("DO $body$ BEGIN END $body$", 0),
        ("CREATE TRIGGER a AFTER INSERT ON b BEGIN DELETE FROM c; END", 0),
        ("SELECT body FROM _documents JOIN mine ON _documents.id = mine.id FOR UPDATE", 0),
        ("INSERT INTO mine SELECT id FROM _documents ON CONFLICT DO UPDATE SET _x = 1", 0),
        ("INSERT INTO mine VALUES ('INTO _documents')", 0),
    ],
)
def test_placeholders_are_told_from_what_is_no_code(statement: str, placeholders: int) -> None:
    check_statement(statement, placeholders)
    with pytest.raises(TypeError, match="the statement takes"):
        check_statement(statement, placeholders + 1)


@pytest.mark.parametrize("statement", ["SELECT ?", "SELECT %s", "SELECT :name", "SELECT 1"])
def test_whoever_gives_more_parameters_than_there_are_is_told_how_they_are_written(statement: str) -> None:
    with pytest.raises(TypeError, match=r"takes no parameters, and 1 was given; parameters are written \$1, \$2 and"):
        check_statement(statement, 1)


def test_whoever_gives_fewer_is_not() -> None:
    with pytest.raises(TypeError, match=r"takes 2 parameters, and 1 was given$"):
        check_statement("SELECT $1, $2", 1)


def test_a_number_that_is_left_out_is_refused() -> None:
    with pytest.raises(SQLError, match=r"written \$1, \$2 and so on, none left out; these are \$1, \$3$"):
        check_statement("SELECT $3, $1", 2)


@pytest.mark.parametrize(
    "statement",
    [
        "insert or replace into main._documents VALUES (1)",
        "UPDATE ONLY public . _documents SET body = $1",
        "WITH a AS (DELETE FROM _documents RETURNING id) SELECT * FROM a",
        "TRUNCATE _documents",
        'DROP TABLE IF EXISTS "_documents"',
        "CREATE TABLE mine (id TEXT REFERENCES _documents)",
        "SELECT 1 INTO _mine",
    ],
)
def test_writing_dulys_own_tables_is_told_from_reading_them(statement: str) -> None:
    with pytest.raises(SQLError, match="are duly's own"):
        check_statement(statement, statement.count("$1"))


def test_what_is_bare_is_the_code_alone() -> None:
    assert bare(" ; SELECT 'a;b' -- c\n ; \n") == "SELECT"
    assert bare("-- nothing") == ""
