import pkgutil
from importlib import import_module

import jobsched.db
from jobsched.db.numbered import Numbered

#: Of a longer one psycopg does not remember where its parameters stand (psycopg/_queries.py).
REMEMBERED = 4096


def test_parameters_are_numbered_in_the_order_in_which_they_are_first_named() -> None:
    statement = Numbered("SELECT %(b)s::int, %(a)s, %(b)s WHERE 7 %% 2 = 1")
    assert statement.by_number == b"SELECT $1::int, $2, $1 WHERE 7 % 2 = 1"
    assert statement.values({"a": "x", "b": "y", "unused": "z"}) == ("y", "x")


def test_no_statement_is_searched_for_its_parameters_at_each_use() -> None:
    searched = [
        f"{module.name}.{name}"
        for module in pkgutil.iter_modules(jobsched.db.__path__, "jobsched.db.")
        for name, value in vars(import_module(module.name)).items()
        if isinstance(value, str) and not isinstance(value, Numbered)
        if len(value) > REMEMBERED and "%(" in value
    ]
    assert searched == []
