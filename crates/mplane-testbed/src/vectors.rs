//! Golden vectors: what the reference implementation does, recorded.

use std::path::PathBuf;

use mplane::registry::{Registries, Registry};

/// Loads a file of vectors.
///
/// # Panics
///
/// If the file is missing or no JSON: both are part of the repository.
pub fn load(name: &str) -> serde_json::Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let file = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the embedded registries and the one that some vectors name.
///
/// # Panics
///
/// If that registry is damaged: it is part of the repository.
pub fn registries() -> Registries {
    let mut registries = Registries::embedded();
    let loopback = load("loopback-registry.json").to_string();
    let loopback = Registry::parse(loopback.as_bytes(), &registries)
        .expect("a registry that is part of the repository");
    registries.add(loopback);
    registries
}
