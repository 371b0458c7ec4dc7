//! Temporal scopes.
