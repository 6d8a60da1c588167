"""Tests of supervision: injected time, scripted actors."""
