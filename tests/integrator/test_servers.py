"""Applications that a server imports get the call where they are run."""

from __future__ import annotations

from pathlib import Path

import pytest
from bots import MODEL, SCRIPTS
from outcomes import changed, run

APP = """\
from fastapi import FastAPI

from .model import answer

app = FastAPI()


@app.post("/answer")
def post(prompt: str):
    return answer(prompt)
"""


@pytest.mark.parametrize(
    ("made", "routes", "included"),
    [
        (
            "from fastapi import FastAPI",
            "from fastapi import APIRouter as Routes",
            "include_router",
        ),
        ("from flask import Flask", "from flask import Blueprint as Routes", "register_blueprint"),
    ],
)
def test_an_application_whose_functions_are_in_other_files(
    tmp_path: Path, made: str, routes: str, included: str
) -> None:
    router = APP.replace("from fastapi import FastAPI", routes).replace("FastAPI", "Routes")
    router = router.replace("app", "router")
    use = f"app = {made.split()[-1]}(__name__)\napp.{included}(router.router)\n"
    app = f"{made}\n\nfrom . import router\n\n{use}"
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/router.py": router}
    outcomes = run(tmp_path, {**files, "bot/app.py": app})
    assert changed(outcomes) == {"bot/app.py": "application"}


def test_a_router_of_routers_is_no_script(tmp_path: Path) -> None:
    """Also where the application's file is not seen to import it."""
    router = APP.replace("FastAPI", "APIRouter").replace("app", "router")
    routers = "from fastapi import APIRouter\n\nfrom bot import router\n\n"
    routers += "routers = APIRouter()\nrouters.include_router(router.router)\n"
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/router.py": router}
    assert changed(run(tmp_path, {**files, "bot/routers.py": routers})) == {}


SERVE = """\
import argparse

import uvicorn


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    args = parser.parse_args()
    uvicorn.run("{application}", port=args.port)


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("package", "application"),
    [
        ("", "bot.app:app"),
        ("from .app import app\n", "bot:app"),
        ("from . import app as _module\n\napp = _module.app\n", "bot:app"),
        ("from . import app as _module\n\nglobals().update(vars(_module))\n", "bot:app"),
    ],
)
def test_the_script_that_serves_an_application_gets_the_flags(
    tmp_path: Path, package: str, application: str
) -> None:
    """And the application the call, which does what they say: a server's workers, and `uvicorn
    bot.app:app`, import it alone."""
    files = {"bot/__init__.py": package, "bot/model.py": MODEL, "bot/app.py": APP}
    outcomes = run(tmp_path, {**files, "bot/serve.py": SERVE.format(application=application)})
    assert changed(outcomes) == {"bot/serve.py": "argparse-script", "bot/app.py": "application"}
    assert b"enable_flash_attention(inherit=True)" in outcomes["bot/app.py"].after
    assert changed(run(tmp_path / "other", files)) == {"bot/app.py": "application"}


BOTH = """\
import argparse

import uvicorn
from fastapi import FastAPI

from model import answer

app = FastAPI()


@app.post("/answer")
def post(prompt: str):
    return answer(prompt)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    uvicorn.run({what}, workers={workers})


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("what", "workers", "calls"),
    [
        ('"serve:app"', "args.workers", 2),
        ('"serve:app"', "4, reload=False", 2),
        ('"serve:app"', "1, reload=True", 2),
        ('"serve:app"', "1", 1),
        ("app", "1", 1),
    ],
)
def test_an_application_that_serves_itself_has_a_call_for_its_workers(
    tmp_path: Path, what: str, workers: str, calls: int
) -> None:
    serve = BOTH.replace("{what}", what).replace("{workers}", workers)
    outcomes = run(tmp_path, {"model.py": MODEL, "serve.py": serve})
    assert changed(outcomes) == {"serve.py": "argparse-script"}
    after = outcomes["serve.py"].after
    assert after.count(b"        enable_flash_attention(not args.") == 1
    assert after.count(b"    enable_flash_attention(") == calls


def test_a_server_that_passes_by_the_command_line_is_named(tmp_path: Path) -> None:
    serve = BOTH.replace("{what}, workers={workers}", "app")
    files = {"bot/__init__.py": "", "bot/serve.py": serve.replace("from model", "from .model")}
    outcomes = run(tmp_path, {"serve.py": serve, "model.py": MODEL, "bot/model.py": MODEL, **files})
    for name, module in ("serve.py", "serve"), ("bot/serve.py", "bot.serve"):
        [uncovered] = outcomes[name].uncovered
        assert (uncovered.line, uncovered.entry) == (8, f"a server that imports {module}:app")


def test_tasks_of_an_application_that_another_file_makes(tmp_path: Path) -> None:
    app = 'from celery import Celery\n\napp = Celery("bot", include=["bot.tasks"])\n'
    tasks = (
        "from .celery import app\nfrom .model import answer\n\n\n"
        "@app.task\ndef reply(prompt):\n    return answer(prompt)\n"
    )
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/celery.py": app}
    outcomes = run(tmp_path, {**files, "bot/tasks.py": tasks})
    assert changed(outcomes) == {"bot/tasks.py": "application"}


FACTORY = """\
from {package} import {framework}

from .model import answer


def create_app():
    app = {framework}(__name__)

    @app.route("/answer")
    def post(prompt):
        return answer(prompt)

    return app
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wsgi.py", "from bot.factory import create_app\n\napp = create_app()\n"),
        ("asgi.py", "import bot\n\napplication = bot.create_app()\n"),
        ("bot/wsgi.py", "from .factory import create_app as make\n\napp = make()\n"),
    ],
)
def test_an_application_that_a_function_of_another_file_makes(
    name: str, text: str, tmp_path: Path
) -> None:
    factory = FACTORY.format(package="flask", framework="Flask")
    package = "from .factory import create_app\n"
    files = {"bot/__init__.py": package, "bot/model.py": MODEL, "bot/factory.py": factory}
    outcomes = run(tmp_path, {**files, name: text})
    assert changed(outcomes) == {name: "application"}
    assert b"enable_flash_attention(inherit=True)" in outcomes[name].after


@pytest.mark.parametrize(
    ("change", "is_called"),
    [
        (("", ""), True),
        (("create_app()", "create_app(port=80)"), True),
        (("create_app()", "create_app(port)"), False),
        (("    return app", "    app.run()"), False),
        (("    return app", "    app.run()\n    return 0"), False),
        (("    return app", "    return app\n\n\nMAKE = create_app"), False),
        (("create_app()", "main()"), False),
    ],
)
def test_a_function_for_an_application_that_nothing_calls(
    change: tuple[str, str], is_called: bool, tmp_path: Path
) -> None:
    """`flask --app bot.factory run` does, where it needs no arguments; a test is not asked."""
    factory = FACTORY.format(package="flask", framework="Flask").replace(*change)
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/factory.py": factory}
    files["tests/test_it.py"] = "from bot.factory import create_app\n\ncreate_app()\n"
    files["pyproject.toml"] = SCRIPTS.format("bot.factory:main")
    outcomes = run(tmp_path, files)
    assert (changed(outcomes) == {"bot/factory.py": "application"}) == is_called
    assert (b"inherit=True" in outcomes["bot/factory.py"].after) == is_called


def test_a_function_that_makes_anything_else_makes_no_application(tmp_path: Path) -> None:
    factory = FACTORY.format(package="console", framework="Console")
    files = {"bot/__init__.py": "", "bot/model.py": MODEL, "bot/factory.py": factory}
    uses = {"use.py": "from bot.factory import create_app\n\nconsole = create_app()\n"}
    assert changed(run(tmp_path, {**files, **uses})) == {}


@pytest.mark.parametrize(
    ("what", "is_found"),
    [
        ("APP", True),
        ("config.APP", True),
        ("elsewhere", True),
        ('f"{__name__}:app"', False),
        ("settings.app", False),
        ("path", False),
        ("app", None),
        ("make_app()", None),
    ],
)
def test_a_server_of_several_processes_that_names_its_application_by_a_variable(
    what: str, is_found: bool | None, tmp_path: Path
) -> None:
    """None for the application itself, with which there is one process."""
    text = BOTH.replace("{what}", what).replace("{workers}", "2")
    text = text.replace("import uvicorn\n", "import config\nimport uvicorn\n")
    text = text.replace("from model", "from config import APP as elsewhere\nfrom model")
    text = text.replace("\n\ndef main", '\n\nAPP = "serve:app"\n\n\ndef main')
    text = text.replace("    uvicorn", '    path = APP + ""\n    uvicorn')
    files = {"model.py": MODEL, "config.py": 'APP = "serve:app"\n', "serve.py": text}
    outcome = run(tmp_path, files)["serve.py"]
    assert outcome.after.count(b"inherit=True") == (is_found is True)
    lost = [item.line for item in outcome.uncovered if item.entry == "the process started here"]
    assert bool(lost) == (is_found is False)


PREPARES = """\
from mlx_bot.logs import set_up

set_up()

from fastapi import FastAPI

from mlx_bot.model import answer

app = FastAPI()


@app.post("/answer")
def post(prompt: str):
    return answer(prompt)
"""


def test_a_package_that_is_named_after_mlx_does_not_load_it_by_that(tmp_path: Path) -> None:
    """The call stands below the import that loads MLX, and what is done before that stays so."""
    logs = '"""Logs of mlx-bot."""\n\n\ndef set_up():\n    print("mlx-bot")\n'
    files = {"mlx_bot/__init__.py": "", "mlx_bot/model.py": MODEL, "mlx_bot/logs.py": logs}
    after = run(tmp_path, {**files, "mlx_bot/app.py": PREPARES})["mlx_bot/app.py"].after.decode()
    assert after.index("import answer") < after.index("mlx_flash_runtime") < after.index("app = ")


@pytest.mark.parametrize("module", ["mlx_bot", "mlx_bot.serve", "mlx_bot.elsewhere"])
def test_a_module_of_the_project_is_no_command_of_a_library(tmp_path: Path, module: str) -> None:
    """What it runs is said of its own file."""
    start = f'import subprocess\nimport sys\n\nsubprocess.run([sys.executable, "-m", "{module}"])\n'
    serve = SERVE.format(application="mlx_bot.app:app")
    files = {"mlx_bot/__init__.py": "", "mlx_bot/serve.py": serve, "start.py": start}
    assert run(tmp_path, files)["start.py"].uncovered == ()
