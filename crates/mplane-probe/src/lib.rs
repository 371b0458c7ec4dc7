//! mplane-probe
