"""`python -m llb_core` is `llb`."""

from llb_core.cli import entry

if __name__ == "__main__":
    entry()
