"""`python -m llb_core` is `llb`."""

from llb_core.cli import main

if __name__ == "__main__":
    main()
