"""`duly codegen` and `duly openapi`."""

from tests.cli.commands import Duly

FILES = ("api.d.ts", "api.js", "dataModel.d.ts")


def test_codegen_writes_the_files_and_only_what_has_changed(shop: Duly) -> None:
    first = shop("codegen", "shop:app", "--typescript", "web/generated")
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines() == [f"wrote web/generated/{name}" for name in FILES]
    folder = shop.folder / "web" / "generated"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert "create_order: FunctionReference<" in (folder / "api.d.ts").read_text()
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    again = shop("codegen", "shop", "--typescript", "web/generated")
    assert (again.code, again.out) == (0, "web/generated is up to date\n")
    (folder / "api.d.ts").write_text("old")
    third = shop("codegen", "shop:app", "--typescript", "web/generated")
    assert third.out == "wrote web/generated/api.d.ts\n"
    unchanged = {path for path, time in written.items() if path.stat().st_mtime_ns == time}
    assert unchanged == {folder / "api.js", folder / "dataModel.d.ts"}


def test_codegen_check_writes_nothing_and_tells(shop: Duly) -> None:
    missing = shop("codegen", "shop:app", "--typescript", "generated", "--check")
    assert missing.code == 1
    assert missing.err == (
        "error: not up to date: generated/api.d.ts, generated/api.js, generated/dataModel.d.ts\n"
        "hint: run the same command without --check\n"
    )
    assert not (shop.folder / "generated").exists()
    assert shop("codegen", "shop:app", "--typescript", "generated").code == 0
    result = shop("codegen", "shop:app", "--typescript", "generated", "--check")
    assert (result.code, result.out, result.err) == (0, "generated is up to date\n", "")


def test_codegen_says_why_it_can_not_write(shop: Duly) -> None:
    shop.write("generated", "a file")
    result = shop("codegen", "shop:app", "--typescript", "generated")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: the files can't be written: ")


def test_codegen_asks_for_a_folder(shop: Duly) -> None:
    result = shop("codegen", "shop:app")
    assert result.code == 2
    assert "--typescript" in result.err


def test_openapi_prints_the_document(shop: Duly) -> None:
    result = shop("openapi", "shop:app")
    assert (result.code, result.err) == (0, "")
    assert result.json["openapi"] == "3.1.0"
    assert "/api/run/orders/create_order" in result.json["paths"]
    assert not list(shop.folder.glob("*.db*"))
