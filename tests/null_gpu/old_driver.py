"""Runs commands beside a driver too old for PyTorch; prints what each returned and told people."""

import contextlib
import io
import json
import sys

from mmfe_cli.app import run

photograph, folder = sys.argv[1:]
FOUND = {}
for name, arguments in {
    "doctor": ["doctor"],
    "restore": ["restore", photograph, "-o", f"{folder}/one.png"],
    "inspect": ["inspect", photograph],
    "cpu": ["restore", photograph, "-o", f"{folder}/three.png", "--device", "cpu"],
    "cuda": ["restore", photograph, "-o", f"{folder}/two.png", "--device", "cuda"],
}.items():
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = run(arguments)
    FOUND[name] = code, " ".join(told.getvalue().split())
print(json.dumps(FOUND))
