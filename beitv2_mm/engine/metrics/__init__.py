"""Metrics of pretraining and evaluation, which `beitv2_mm.engine` exports."""
