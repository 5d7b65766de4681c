"""Trains a LoRA adapter from a directory that Artel wrote and writes a directory that Artel reads.

All that is decided (data, gate, versions) is decided outside; this package knows token ids, a base model and settings.
"""
