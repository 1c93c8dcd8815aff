"""Trains the embedded default: a base, eight experts, a value model and two baselines."""
