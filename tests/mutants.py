"""`python -m tests.mutants`: break the risk checks and the levels in one place at a time, and see that a test notices.

A mutant that no test notices is a rule that nobody would miss. Those that cannot be noticed stand in EQUIVALENT with
the reason; at least WANTED of all must be killed, and every survivor must stand there.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
MODULES = ("app.domain.checks", "app.domain.risk", "app.domain.levels", "app.domain.limits")
TESTS = ("tests.unit.test_risk", "tests.unit.test_risk_bounds", "tests.unit.test_levels")
"""Plain functions, some parametrized, none with a fixture: called here, for pytest would take a second for each."""
WANTED = 0.95
AT_ONCE = 2
TIMEOUT_S = 120
LOADED_ONCE = ("hypothesis.strategies", "pytest", "zoneinfo")
"""Big, and without anything of ours in them: a child has them by its fork."""

EQUIVALENT = {
    "app.domain.checks: return sum(is_trading_day(first + timedelta(days=n)) "
    "for n in range(1, max(0, (last - first).days) + 1)): 0 - 1": "a range from 1 to 1 is as empty as one to 0",
}
"""By `module: source line: change`."""

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    module: str
    line: int
    text: str
    change: str
    tree: ast.AST

    @property
    def name(self) -> str:
        return f"{self.module}: {self.text}: {self.change}"


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:  # noqa: PLR0912 - a table in the shape of a match
    """The ways to break one node."""
    match node:
        case ast.Compare(ops=[*ops]):
            for at, op in enumerate(ops):
                for other in COMPARED[type(op)]:
                    new = copy.deepcopy(node)
                    new.ops[at] = other()
                    yield f"{type(op).__name__} to {other.__name__}", new
        case ast.BoolOp():
            other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and/or", ast.BoolOp(other_op, node.values)
        case ast.BinOp() if type(node.op) in CALCULATED:
            to = CALCULATED[type(node.op)]
            yield f"{type(node.op).__name__} to {to.__name__}", ast.BinOp(node.left, to(), node.right)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "without the sign", node.operand
        case ast.Constant(value=bool(value)):
            yield f"{value} to {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield f"{value} + 1", ast.Constant(value + 1)
            yield f"{value} - 1", ast.Constant(value - 1)
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "return nothing", ast.Return(ast.Constant(None))
        case ast.Return():
            yield "return something", ast.Return(ast.Constant("something"))
        case ast.IfExp() | ast.If():
            for said in (True, False):
                new_if = copy.copy(node)
                new_if.test = ast.Constant(said)
                yield f"if {said}", new_if
        case ast.Continue():
            yield "continue to break", ast.Break()
        case ast.Call(func=ast.Name(id="min" | "max" | "abs" as name)) if name == "abs":
            yield "without abs", node.args[0]
        case ast.Call(func=ast.Name(id="min" | "max" as name)):
            yield (
                f"not {name}",
                ast.Call(ast.Name("max" if name == "min" else "min", ast.Load()), node.args, node.keywords),
            )
        case ast.Call(func=ast.Attribute(attr="astimezone", value=value)):
            yield "without its time zone", value
        case ast.Tuple(elts=[ast.Call(func=ast.Name(id="Check")), *_]):
            for at in range(len(node.elts)):
                yield f"without row {at}", ast.Tuple(node.elts[:at] + node.elts[at + 1 :], node.ctx)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class _Swap(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs when a check is asked: no decorators, annotations or type aliases."""
    for name, field in ast.iter_fields(tree):
        if name in ("decorator_list", "annotation", "returns"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST):
                yield child
                yield from _code(child)


def mutants(module: str) -> Iterator[Mutant]:
    source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
    lines = source.splitlines()
    count = len(list(_code(ast.parse(source))))
    for at in range(count):
        for n in range(len(list(variants(list(_code(ast.parse(source)))[at])))):
            tree = ast.parse(source)
            node = list(_code(tree))[at]
            change, new = list(variants(node))[n]
            line = getattr(node, "lineno", 0)
            swapped = ast.fix_missing_locations(_Swap(node, ast.copy_location(new, node)).visit(tree))
            yield Mutant(module, line, lines[line - 1].strip(), change, swapped)


class _Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutant where its module is asked for."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.mutant.module else None

    def exec_module(self, module: ModuleType) -> None:
        code = compile(self.mutant.tree, self.mutant.module, "exec")  # type: ignore[call-overload]
        exec(code, module.__dict__)


def _call_all(module: ModuleType) -> None:
    """Every test of a module with all its parameters; the first that fails raises."""
    for name, function in vars(module).items():
        if not name.startswith("test_"):
            continue
        marks = [m for m in getattr(function, "pytestmark", ()) if m.name == "parametrize"]
        for values in itertools.product(*(m.args[1] for m in marks)):
            given: dict[str, object] = {}
            for mark, value in zip(marks, values, strict=True):
                names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
                given |= dict(zip(names, [value] if len(names) == 1 else value, strict=True))
            function(**given)


def _run(mutant: Mutant | None) -> int:
    """A child that runs the tests on the mutant (None: on the code as it is). Its process id."""
    child = os.fork()
    if child:
        return child
    signal.alarm(TIMEOUT_S)
    code = 1
    with contextlib.suppress(BaseException), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        if mutant is not None:
            sys.meta_path.insert(0, _Broken(mutant))
        for name in TESTS:
            _call_all(importlib.import_module(name))
        code = 0
    os._exit(code)


def survivors(found: Sequence[Mutant]) -> list[Mutant]:
    """Those on which every test passes."""
    running: dict[int, Mutant] = {}
    alive: list[Mutant] = []

    def ended() -> None:
        child, status = os.wait()
        mutant = running.pop(child)
        if status == 0:
            alive.append(mutant)

    for mutant in found:
        while len(running) >= AT_ONCE:
            ended()
        running[_run(mutant)] = mutant
    while running:
        ended()
    return sorted(alive, key=lambda m: (m.module, m.line, m.change))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    for name in LOADED_ONCE:
        importlib.import_module(name)
    os.chdir(ROOT)
    _, status = os.waitpid(_run(None), 0)
    if status:
        say("the tests fail on the code as it is")
        return 1
    found = [mutant for module in MODULES for mutant in mutants(module)]
    alive = survivors(found)
    for mutant in alive:
        why = EQUIVALENT.get(mutant.name, "NOT EXPLAINED")
        say(f"{mutant.module}:{mutant.line}: {mutant.text}\n    {mutant.change}: {why}")
    killed = len(found) - len(alive)
    say(f"{killed} of {len(found)} mutants killed ({killed / len(found):.1%}), {len(alive)} left alive")
    unexplained = [m for m in alive if m.name not in EQUIVALENT]
    return int(bool(unexplained) or killed < WANTED * len(found))


if __name__ == "__main__":
    sys.exit(main())
