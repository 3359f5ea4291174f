"""What the tests of the command line share."""

import os
import signal

# Workers of pytest-xdist have a width of 80 in their environment, which a pipe has not.
os.environ.pop("COLUMNS", None)

# A shell starts what runs in its background with SIGINT ignored, and programs inherit that: tests
# that interrupt one would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
