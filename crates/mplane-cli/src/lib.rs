//! mplane-cli
