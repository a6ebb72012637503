"""``python -m lampe_eval`` is ``lampe-eval``."""

import signal

# Until `main` handles signals, Ctrl-C ends the imports below without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from lampe_eval.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
