"""Outside judges that are single functions: fetched by package name and run, never copied into this repository.

`selective_scan_ref` and `selective_state_update_ref` stand in mamba-ssm's source package among CUDA imports that a CPU
cannot satisfy, so only these two functions are taken out of the files and run. They compute in f32.
"""

import ast
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

PACKAGE = "mamba-ssm==2.3.2.post1"
FUNCTIONS = {
    "selective_scan_ref": "mamba_ssm/ops/selective_scan_interface.py",
    "selective_state_update_ref": "mamba_ssm/ops/triton/selective_state_update.py",
}


def functions():
    """{name: function} from mamba-ssm's source package."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        environment = {**os.environ, "MAMBA_SKIP_CUDA_BUILD": "TRUE"}
        subprocess.run([*command, "--no-binary", ":all:", "-d", folder, PACKAGE], check=True, env=environment)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            root = archive.getnames()[0].split("/")[0]
            return {name: _take(archive.extractfile(f"{root}/{path}").read(), name) for name, path in FUNCTIONS.items()}


def _take(source, name):
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name)
    scope = {"torch": torch, "F": F, "rearrange": rearrange, "repeat": repeat}
    exec(compile(ast.Module([node], []), name, "exec"), scope)
    return scope[name]
