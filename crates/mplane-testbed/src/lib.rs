//! mplane-testbed
