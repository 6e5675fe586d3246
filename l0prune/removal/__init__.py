"""Removal plans, and cutting a network by one."""
