"""`octavo kernels`."""

from __future__ import annotations

from typing import Annotated

import typer

from octavo import terminal


def kernels(
    compiler: Annotated[str | None, typer.Option(help="By default CXX, or the first of c++, g++ and clang++.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what was compiled.")] = False,
) -> None:
    """Compile octavo's own products of matrices for x86-64 processors, which the runtime then uses on the CPU.

    They are written beside octavo's code. Without them ONNX Runtime's are used.
    """
    from octavo.runtime.ort.kernels import compile_kernels, remove_kernels
    from octavo.runtime.ort.kernels import kernels as found

    if remove:
        for path in remove_kernels():
            terminal.say(f"removed {path}")
        return
    terminal.say(f"compiled {compile_kernels(compiler)}: {found()}")
