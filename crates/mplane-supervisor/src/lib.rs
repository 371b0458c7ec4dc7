//! mplane-supervisor
