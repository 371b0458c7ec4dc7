//! The mPlane information model.

pub mod when;
