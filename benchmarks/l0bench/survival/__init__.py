"""Whether a run survives being killed, and a full disk, at every file-system call that it makes."""
