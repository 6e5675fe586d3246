"""What is said in the embedded speech, and by whom."""
