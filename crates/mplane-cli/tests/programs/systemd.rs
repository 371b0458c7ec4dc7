//! The units of systemd, and the configurations that their document shows.
//!
//! Whether systemd accepts the units, and how much they expose, is checked by `.ci/run`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::check;
use crate::domain::{Domain, MPCOM, MPSUP};

/// Returns a file of the repository.
fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the configuration of a program in the document, with the files of a domain where
/// the document has the machine's.
fn documented(domain: &Domain, program: &str, name: &str) -> PathBuf {
    let document = file("docs/systemd.md");
    let section = if program == "supervisor" { "[supervisor" } else { "[component]" };
    let mut blocks = document.split("```toml\n").skip(1);
    let block =
        blocks.find(|block| block.contains(section)).expect("the document shows it");
    let config = block.split("```").next().expect("the block ends");
    let pki = domain.path("pki").display().to_string();
    let credentials = format!("/run/credentials/mplane-{program}.service/{program}.key");
    assert!(config.contains(&credentials), "{config}");
    let config = config
        .replace(&credentials, &format!("{pki}/{name}.key"))
        .replace("/etc/mplane/pki/ca.crt", &format!("{pki}/ca.crt"))
        .replace(&format!("/etc/mplane/pki/{program}.crt"), &format!("{pki}/{name}.crt"))
        .replace("/var/lib/mplane/component.spool", "component.spool")
        .replace("/var/lib/mplane-supervisor/store", "store");
    assert!(!config.contains("mplane/"), "{config}");
    let path = domain.path(&format!("{program}.toml"));
    fs::write(&path, config).expect("the folder is ours");
    path
}

#[test]
fn the_documented_configurations_are_accepted() {
    let domain = Domain::new();
    check(MPCOM, &documented(&domain, "component", "com-1")).expect(0);
    check(MPSUP, &documented(&domain, "supervisor", "sup-1")).expect(0);
}

#[test]
fn the_units_name_what_the_document_installs() {
    for (program, binary) in [("component", "mpcom"), ("supervisor", "mpsup")] {
        let unit = file(&format!("etc/systemd/mplane-{program}.service"));
        let config = format!("--config /etc/mplane/{program}.toml");
        let credential = format!("{program}.key:/etc/mplane/pki/{program}.key");
        for line in [
            format!("ExecStartPre=/usr/local/bin/{binary} {config} --check"),
            format!("ExecStart=/usr/local/bin/{binary} {config} --log-format json"),
            format!("LoadCredential={credential}"),
        ] {
            assert!(unit.lines().any(|it| it == line), "{line}: {unit}");
        }
    }
}
