"""Fixtures of the command-line tests."""

import sys

import pytest


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line; returns exit status, standard output and standard error."""

    from hf_matryoshka.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf-matryoshka", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        output = capsys.readouterr()
        return status, output.out, output.err

    return run
