//! Scripted sweeps: every time is chosen by the test.
