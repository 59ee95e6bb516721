"""Estimates are the same to the last digit, however many threads a machine has."""

import ast
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import nex_merge
from nex_merge.one_thread import on_one_thread, one_thread

PACKAGE = Path(nex_merge.__file__).parent
FILES = sorted(
    path for folder in ("measures", "nex", "labels", "inspect") for path in PACKAGE.glob(f"{folder}/**/*.py")
)


def threads():
    return {item["num_threads"] for item in threadpool_info() if item["user_api"] == "blas"}


def test_the_number_of_threads_is_as_before_afterwards():
    with threadpool_limits(2, "blas"):
        assert threads() == {2}
        with pytest.raises(ZeroDivisionError), one_thread():
            assert threads() == {1}
            raise ZeroDivisionError
        assert on_one_thread(threads)() == {1} and threads() == {2}


def test_python_threads_take_turns():
    """Else the first to leave would lift the limit while the others are still at it."""
    with ThreadPoolExecutor(1) as pool:
        with one_thread(), one_thread():
            other = pool.submit(on_one_thread(threads))
            assert not wait([other], 0.1).done
        assert other.result(10) == {1}


def test_products_are_those_of_one_thread():
    """Of the kind that interval ends come from: counts of drawn prompts by what is known of each, in float32."""
    rng = np.random.default_rng(0)
    counts, credit = (rng.random(shape, dtype=np.float32) for shape in ((1001, 24), (24, 4099)))
    masses = rng.random((24, 4099), dtype=np.float32)

    def product():
        return ((counts @ credit) @ masses.T).tobytes()

    def under(number, function):
        with threadpool_limits(number, "blas"):
            return function()

    assert under(8, on_one_thread(product)) == under(1, product)


def products(path):
    """(line, whether it is on one thread) of the products of matrices in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    limited = []
    for node in ast.walk(tree):
        names = [ast.unparse(item) for item in getattr(node, "decorator_list", ())]
        names += [ast.unparse(item.context_expr) for item in getattr(node, "items", ())]
        if {"on_one_thread", "one_thread()"} & {*names}:
            limited.append(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(tree):
        is_product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
        is_call = isinstance(node, ast.Call) and any(
            word in ast.unparse(node.func) for word in ("linalg", "einsum", "matmul", "tensordot", ".dot")
        )
        if is_product or is_call:
            yield node.lineno, any(node.lineno in lines for lines in limited)


def test_no_measure_multiplies_matrices_on_more_than_one_thread():
    found = {(path.name, line): is_limited for path in FILES for line, is_limited in products(path)}
    left = {name for (name, line), is_limited in found.items() if not is_limited}
    assert len(found) > 8 and left == {"rules.py"}  # whose products are counts, which are exact
