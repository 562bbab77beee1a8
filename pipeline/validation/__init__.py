"""Estimators and the replay scored where the truth is known: worlds, recorded logs and measured arms."""
