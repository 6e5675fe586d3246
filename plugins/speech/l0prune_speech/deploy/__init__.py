"""Encoders out: written for other stacks, made ready to run, measured."""
