//! mplane-runtime
