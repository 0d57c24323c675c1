"""`hf-matryoshka doctor`."""

from typing import Annotated, Any

import typer

from .command import print_json
from .options import JsonFlag


def doctor(
    online: Annotated[bool, typer.Option("--online", help="Ask the Hub whether it answers; one request.")] = False,
    json: JsonFlag = False,
) -> None:
    """Say what is installed, what this machine can do, and how to get what is missing.

    Exit status 1 if something required is missing, too old or does not load.

    Example: hf-matryoshka doctor
    """
    from .environment import describe

    found = describe(online)
    if json:
        print_json(found)
    else:
        _print(found)
    if not found["ok"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    from .environment import CHROMIUMS

    packages = found["packages"]
    names, versions = (max(len(item[key] or "-") for item in packages) for key in ("name", "installed"))
    for item in packages:
        needed = f" (needs {item['needed']})" if item["needed"] and item["status"] not in ("ok", "elsewhere") else ""
        what = f"; {item['purpose']}" if item["purpose"] else ""
        status = f"{item['status']}{needed}{'' if item['required'] else ', optional'}{what}"
        print(f"{item['name']:<{names}}  {item['installed'] or '-':<{versions}}  {status}")
    print()
    _print_machine(found["machine"])
    none = f"none on the PATH, as {', '.join(CHROMIUMS[:-1])} or {CHROMIUMS[-1]}; the extra browser drives one"
    print(f"Chromium: {found['chromium'] or none}")
    for cache in found["caches"]:
        note = "" if cache["writable"] else ", not writable"
        print(f"Cache of {cache['name']}: {cache['path']} ({cache['free_gb']:g} GB free{note})")
    _print_hub(found["hub"])
    lacking = [item for item in packages if item["install"] is not None]
    for title, required in (("Required", True), ("Optional", False)):
        # One command may serve several packages.
        commands = dict.fromkeys(item["install"] for item in lacking if item["required"] is required)
        if commands:
            print(f"\n{title}:")
        for command in commands:
            print(f"  {command}")
    print(f"\n{'All that is required is here.' if found['ok'] else 'Something required is missing, see above.'}")


def _print_machine(machine: dict[str, Any]) -> None:
    print(f"System: {machine['system']}, {machine['cores']} cores")
    if "error" in machine:
        print(machine["error"])
        return
    speed = "computed by the CPU itself" if machine["cpu_bf16"] else "slower than float32 on this CPU"
    print(f"torch: {machine['threads']} threads; bfloat16 {speed}")
    for device in machine["devices"]:
        words = [device["device"]]
        if "name" in device:
            bf16 = "bfloat16" if device["bf16"] else "no bfloat16"
            words += [device["name"], f"{device['memory_gb']:g} GB", bf16]
        print(f"Device: {', '.join(words)}")
    if not machine["devices"]:
        print("Device: cpu only")


def _print_hub(hub: dict[str, Any]) -> None:
    if "endpoint" not in hub:
        print(hub["error"])
        return
    answers = {None: "not asked (--online asks)", True: "answers", False: f"does not answer ({hub.get('error')})"}
    mode = ", offline mode" if hub["offline_mode"] else ""
    print(f"Hub: {hub['endpoint']}{mode}, {answers[hub['reachable']]}; {'a' if hub['token'] else 'no'} token")
