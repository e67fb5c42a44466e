"""Hooks of the runner; `beitv2_mm.engine` exports those that configs name.

A module holds one hook, or several for pictures. ``predictions``, ``deferred`` and ``stop_signals``
hold none: they serve the others.
"""
