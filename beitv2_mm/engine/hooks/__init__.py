"""One hook per module; `beitv2_mm.engine` exports those that configs name."""
