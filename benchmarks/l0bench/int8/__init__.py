"""What `int8.py` measures: losses of exported files, times, and where the time goes."""

from l0bench.int8.files import Student, hidden_states, open_student, sessions
from l0bench.int8.profile import Share, profile, shares_of
from l0bench.int8.training import further

__all__ = ["Share", "Student", "further", "hidden_states", "open_student", "profile", "sessions", "shares_of"]
