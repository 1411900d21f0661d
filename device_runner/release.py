"""A release: the signed sentence "this bundle is version N for devices of this kind".

`release.json` names the bundle by the SHA-256 of its manifest, which binds every other file; `release.json.sig` is its
signature by `ssh-keygen -Y sign`, with a namespace of its own, so that no signature made for something else counts. The
device holds one file of trusted keys in the form of ssh's allowed_signers:

    release namespaces="device-runner-release" ssh-ed25519 AAAA...
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from device_runner import __version__
from device_runner.bundle import RELEASE_NAME, SIGNATURE_NAME, Bundle
from device_runner.errors import BundleError, Downgrade, Mixed, Problem, RunnerTooOld, Unsigned, WrongDevice, WrongKey
from device_runner.manifest import Sha256

NAMESPACE = "device-runner-release"
IDENTITY = "release"
TIMEOUT_S = 10.0


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed."""

    schema: Literal[1] = 1
    bundle: Sha256  # of manifest.json
    version: Annotated[int, msgspec.Meta(ge=1)]  # an installed version is never followed by a lower one
    kinds: tuple[str, ...]  # of devices it is for; empty: any
    min_runner: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+\.\d+$")]


def check_release(bundle: Bundle, keys: str | None, kind: str | None, lowest: int) -> Release | None:
    """Whether this bundle may run on this device; None for an unsigned one on a device without trusted keys.

    Args:
        bundle: verified, so that its files are those of its manifest.
        keys: path of the trusted keys; None: signatures are not asked for.
        kind: of this device; None: any release fits.
        lowest: version that was committed before; 0 if none.

    Raises:
        Unsigned, WrongKey, Mixed, WrongDevice, RunnerTooOld, Downgrade: the first that applies.
    """
    raw, signature = bundle.files.get(RELEASE_NAME), bundle.files.get(SIGNATURE_NAME)
    if raw is None or (signature is None and keys is not None):
        if keys is None:
            return None
        missing = RELEASE_NAME if raw is None else SIGNATURE_NAME
        raise Unsigned(
            "the bundle is not signed", f"it has no {missing}", "`device_runner release` writes and signs it"
        )
    if keys is not None and signature is not None:
        verify_signature(raw, signature, keys)
    release = parse(raw)
    for holds, error in _refusals(release, bundle, kind, lowest):
        if not holds:
            raise error
    return release


def parse(raw: bytes) -> Release:
    """Read release.json.

    Raises:
        BundleError: it is none.
    """
    try:
        return msgspec.json.decode(raw, type=Release)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{RELEASE_NAME} cannot be read", str(error), "release the bundle again") from error


def _refusals(r: Release, bundle: Bundle, kind: str | None, lowest: int) -> list[tuple[bool, Problem]]:
    again = "release this very bundle again"
    kinds = ", ".join(r.kinds)
    wrong = WrongDevice(f"the bundle is for {kinds}", f"this device is a {kind}", "install the bundle for this kind")
    old = RunnerTooOld("the bundle needs a newer runner", f"{r.min_runner}, this is {__version__}", "update the runner")
    why = f"version {lowest} was committed before"
    down = Downgrade(f"version {r.version} is too old", why, "release it again with a higher version")
    return [
        (
            r.bundle == bundle.sha256,
            Mixed("the release is of another bundle", "the hashes of the manifest differ", again),
        ),
        (kind is None or not r.kinds or kind in r.kinds, wrong),
        (_numbers(r.min_runner) <= _numbers(__version__), old),
        (r.version >= lowest, down),
    ]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def verify_signature(message: bytes, signature: bytes, keys: str) -> None:
    """Ask ssh-keygen whether a trusted key signed exactly these bytes.

    Raises:
        WrongKey: none did.
        Problem: the keys cannot be read, or there is no ssh-keygen.
    """
    if not Path(keys).is_file():
        raise Problem(f"{keys} cannot be read", "there is no such file of trusted keys", "put the public key there")
    fd = os.memfd_create("signature")  # never a file on a disk that may be full or read-only
    try:
        os.write(fd, signature)
        argv = ["ssh-keygen", "-Y", "verify", "-f", keys, "-I", IDENTITY, "-n", NAMESPACE, "-s", f"/proc/self/fd/{fd}"]
        done = subprocess.run(argv, input=message, capture_output=True, pass_fds=(fd,), timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Problem("ssh-keygen cannot be run", str(error), "apt install openssh-client") from error
    finally:
        os.close(fd)
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:200] or f"exit code {done.returncode}"
        raise WrongKey("no trusted key signed this release", said, "sign it with a key in the file of trusted keys")


def write_release(bundle: Bundle, folder: Path, release: Release, key: Path) -> None:
    """Write release.json into a bundle's directory and sign it with an ssh key.

    Raises:
        Problem: ssh-keygen refuses, or the directory cannot be written.
    """
    path = folder / RELEASE_NAME
    try:
        (folder / SIGNATURE_NAME).unlink(missing_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(release), indent=2) + b"\n")
        argv = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path)]
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Problem("the release cannot be written", str(error), "check the directory and ssh-keygen") from error
    if done.returncode:
        path.unlink()
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
        raise Problem(
            "the release cannot be signed", said, "name a private ssh key, such as one by ssh-keygen -t ed25519"
        )
