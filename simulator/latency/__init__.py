"""Latency models: seconds and joules of a step on a device."""
