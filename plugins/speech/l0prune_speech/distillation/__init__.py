"""Students that learn from a teacher: the loss, and the teacher's states."""
