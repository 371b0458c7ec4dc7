//! The reference of the configuration says what the code reads: the same keys, and examples
//! that are read.

use std::collections::BTreeSet;
use std::path::Path;

use super::Config;

const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");

/// What every configuration here begins with, so that only one thing is wrong with it.
const TLS: &str = "[tls]\nca-chain = \"a\"\ncert = \"b\"\nkey = \"c\"\n";

/// Returns the keys of the tables under a heading, up to the next heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let mut lines = DOCUMENT.lines().skip_while(|line| !line.starts_with(heading));
    assert!(lines.next().is_some(), "the document has {heading}");
    let mut keys = BTreeSet::new();
    let mut is_table = false;
    for line in lines.take_while(|line| !line.starts_with('#')) {
        is_table = line.starts_with("| key") || is_table && line.starts_with('|');
        if is_table && let Some(key) = line.strip_prefix("| `") {
            keys.extend(key.split_once('`').map(|(key, _)| key.to_owned()));
        }
    }
    keys
}

/// Returns the keys that the code reads beside a key that it does not know.
fn read(section: &str) -> BTreeSet<String> {
    let text = read_error(&format!("{section}no-such-key = 1\n"));
    let (_, expected) =
        text.split_once("expected ").unwrap_or_else(|| panic!("{section}: {text}"));
    expected.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// Returns why sections are not read.
fn read_error(section: &str) -> String {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("config.toml");
    let tls = if section.starts_with("[tls]") { "" } else { TLS };
    std::fs::write(&path, format!("{tls}{section}")).expect("it is ours");
    mplane_runtime::report(&Config::load(&path).expect_err("a key is wrong"))
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_read() {
    let service = "[component]\n[[component.service]]\n";
    for (heading, section, sections_within) in [
        ("## `[tls]`", "[tls]\n", &[][..]),
        ("## `[registries]`", "[registries]\n", &[]),
        ("## `[access]`", "[access]\n", &[]),
        (
            "## `[supervisor]`",
            "[supervisor]\nlistener = { address = \"127.0.0.1:0\" }\n",
            &["listener", "component-listener", "component", "initiator", "hand-out"],
        ),
        ("### `[supervisor.listener]`", "[supervisor.listener]\n", &[]),
        (
            "### `[supervisor.component-listener]`",
            "[supervisor.component-listener]\n",
            &[],
        ),
        (
            "### `[[supervisor.component]]`",
            "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n[[supervisor.component]]\n",
            &[],
        ),
        (
            "### `[[supervisor.hand-out]]`",
            "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n[[supervisor.hand-out]]\n",
            &[],
        ),
        (
            "### `[[supervisor.initiator]]`",
            "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n[[supervisor.initiator]]\n",
            &[],
        ),
        ("## `[metrics]`", "[metrics]\n", &[]),
        ("## `[component]`", "[component]\n", &["initiator", "listener", "service"]),
        ("### `[[component.initiator]]`", "[[component.initiator]]\n", &[]),
        ("### `[component.listener]`", "[component.listener]\n", &[]),
        ("#### `type = \"ping\"`", &format!("{service}type = \"ping\"\n"), &[]),
        (
            "#### `type = \"tcp-connect\"`",
            &format!("{service}type = \"tcp-connect\"\n"),
            &[],
        ),
        ("#### `type = \"tstat\"`", &format!("{service}type = \"tstat\"\n"), &[]),
        ("#### `type = \"external\"`", &format!("{service}type = \"external\"\n"), &[]),
        ("## `[client]`", "[client]\n", &[]),
    ] {
        let mut known = read(section);
        known.retain(|key| !sections_within.contains(&key.as_str()));
        assert_eq!(documented(heading), known, "{heading}");
    }
    // Those of every service are read before its own: all else is unknown there.
    let every = documented("### `[[component.service]]`");
    assert_eq!(every.len(), 4);
    for key in every {
        let section = format!("{service}type = \"ping\"\nip4 = \"auto\"\n{key} = []\n");
        let text = read_error(&section);
        assert!(!text.contains("unknown field"), "{key}: {text}");
    }
}

#[test]
fn every_example_is_read() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("config.toml");
    let blocks = DOCUMENT.split("```toml\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|block| block.split("```").next()).collect();
    assert!(blocks.len() > 10, "{}", blocks.len());
    for block in blocks {
        let tls = if block.contains("[tls]") { "" } else { TLS };
        // A component without services is none.
        let is_part =
            block.contains("[component") && !block.contains("component.service");
        let service = "\n[[component.service]]\ntype = \"ping\"\nip4 = \"auto\"\n";
        let service = if is_part { service } else { "" };
        std::fs::write(&path, format!("{tls}{block}{service}")).expect("it is ours");
        load(&path, block);
    }
}

/// Loads an example.
fn load(path: &Path, example: &str) {
    if let Err(error) = Config::load(path) {
        panic!("{example}\n{}", mplane_runtime::report(&error));
    }
}
