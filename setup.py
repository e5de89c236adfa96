"""Compiles the hot rooms of the data plane where that is possible. All else about this project stands in pyproject.toml.

Nothing depends on it: without a C compiler, without Python's headers or with PGWEIR_PLAIN=1 the same files run as plain
Python (`pooler_image/pgweir/compiled.py` tells which, and why).
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path(__file__).parent / "pooler_image" / "pgweir"

spec = importlib.util.spec_from_file_location("compiled", PACKAGE / "compiled.py")
compiled = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compiled)

FOLDER = compiled.folder_name(compiled.digest(PACKAGE))


class BuildRooms(build_ext):
    """Cython, then the C compiler; a failure of either is said and is no failure."""

    def build_extensions(self):
        try:
            # Compiled elsewhere: no C file may lie in the tree beside its source.
            with tempfile.TemporaryDirectory() as scratch:
                translate(Path(scratch), self.extensions)
                if compiled.folder_name(compiled.digest(PACKAGE)) != FOLDER:
                    raise RuntimeError("the sources changed meanwhile")
                self.parallel = os.cpu_count()
                super().build_extensions()
        except Exception as error:  # whatever is wrong with the compiler, the plain form runs
            self.announce(f"pgweir: the compiled form was not built ({error}); the plain one will run", level=3)

    def copy_extensions_to_source(self):
        """An editable installation: what was made of earlier sources goes."""
        for old in (PACKAGE / "_compiled").glob("of_*"):
            if old.name != FOLDER:
                shutil.rmtree(old)
        for extension in self.extensions:
            if (Path(self.build_lib) / self.get_ext_filename(extension.name)).exists():
                Path(self.get_ext_fullpath(extension.name)).parent.mkdir(parents=True, exist_ok=True)
        super().copy_extensions_to_source()


def translate(scratch, extensions):
    from Cython.Compiler.Errors import CompileError
    from Cython.Compiler.Main import CompilationOptions, compile_single

    here = os.getcwd()
    os.chdir(PACKAGE.parent)  # the C files, and with them the binaries, then name no folder of this machine
    try:
        for module, extension in zip(compiled.MODULES, extensions, strict=True):
            target = scratch / f"{module.replace('/', '_')}.c"
            options = CompilationOptions(
                compiler_directives=compiled.DIRECTIVES, output_file=str(target), include_path=["."]
            )
            name = f"pgweir.{module.replace('/', '.')}"
            result = compile_single(f"pgweir/{module}.py", options, full_module_name=name)
            if result.num_errors:
                raise CompileError(message=f"Cython refuses {module}.py")
            extension.sources = [str(target)]
    finally:
        os.chdir(here)


extensions = []
if not compiled.wants_plain() and sys.maxsize > 1 << 32:  # a message's length does not fit a 32-bit machine's words
    extensions = [
        Extension(
            f"pgweir._compiled.{FOLDER}.{module.replace('/', '.')}",
            sources=[],
            optional=True,
            extra_compile_args=["-g0"],
        )
        for module in compiled.MODULES
    ]

setup(ext_modules=extensions, cmdclass={"build_ext": BuildRooms})
