"""`hf-matryoshka hub serve`, in a process of its own."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest


@pytest.fixture
def serve(tmp_path):
    """Starts the command; returns the process and the variables that it prints."""
    started = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}

    def start(*arguments, folder="hub"):
        command = [sys.executable, "-m", "hf_matryoshka.cli", "hub", "serve", "--folder", str(tmp_path / folder)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
        process = subprocess.Popen([*command, *map(str, arguments)], **pipes)
        started.append(process)
        lines = [process.stdout.readline() for _ in range(3)]
        return process, dict(line.strip().removeprefix("export ").split("=", 1) for line in lines if line)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def get(variables, path, token=True):
    headers = {"Authorization": f"Bearer {variables['HF_TOKEN']}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(variables["HF_ENDPOINT"] + path, headers=headers)) as answer:
        return answer.status


def test_serves_until_it_is_told_to_stop(serve):
    process, variables = serve("--port", 0, "--token", "mine")
    assert variables.keys() == {"HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"}
    assert variables["HF_TOKEN"] == "mine" and variables["HF_ENDPOINT"].startswith("http://127.0.0.1:")
    assert get(variables, "/api/whoami-v2") == 200
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(variables, "/api/whoami-v2", token=False)
    port = variables["HF_ENDPOINT"].rsplit(":", 1)[1]
    second, _ = serve("--port", port, folder="other")
    output, error = second.communicate(timeout=30)
    assert second.returncode == 2 and error.startswith(f"Error: port {port} cannot be used") and error.count("\n") == 1
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in error
    assert "200 GET" in error and "401 GET" in error and "/api/whoami-v2  Invalid username" in error


def test_faults_limits_and_quiet(serve):
    process, variables = serve("--port", 0, "--quiet", "--drop", 1.0, "--max-upload-mb", 1)
    with pytest.raises(ConnectionError):
        get(variables, "/api/whoami-v2")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 0 and "whoami" not in error
    process, variables = serve("--drop", 2)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 2 and error == "Error: drop is 2.0; give a share between 0 and 1\n"
