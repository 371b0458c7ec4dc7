//! The manual names every key, and what it says of defaults and limits is so.

use std::path::Path;

use mplane_lab::log::Fate;
use mplane_lab::topology::{HOSTS, LINKS, Topology};

/// The manual.
fn manual() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lab.md");
    std::fs::read_to_string(path).expect("the manual is there")
}

/// The keys that a table may have: those that a refusal of another one names.
fn keys(before: &str, behind: &str) -> Vec<String> {
    let text = format!("{before}no-such-key = 1{behind}");
    let error =
        Topology::parse(&text, "lab").expect_err("there is no such key").to_string();
    let (_, keys) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
    keys.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

#[test]
fn every_key_is_in_the_manual() {
    let manual = manual();
    let link = "host = []\n[[link]]\nbetween = [\"a\", \"b\"]\n";
    let tables = [
        keys("", ""),
        keys("[[host]]\n", ""),
        keys(link, ""),
        keys(&format!("{link}[[link.change]]\nat = \"1s\"\n"), ""),
        keys(&format!("{link}both = {{ "), " }"),
        keys(&format!("{link}both = {{ burst-loss = {{ "), " } }"),
        keys(&format!("{link}both = {{ reorder = {{ "), " } }"),
    ];
    let lengths = tables.each_ref().map(Vec::len);
    assert_eq!(lengths, [6, 4, 7, 4, 11, 3, 2], "all keys were found");
    for key in tables.concat() {
        let is_described = manual.lines().any(|line| {
            line.starts_with(&format!("| `{key}`"))
                || line.starts_with(&format!("| `[[{key}]]`"))
        });
        assert!(is_described, "{key} is not in the manual");
    }
}

#[test]
fn fates_and_limits_are_as_the_manual_says() {
    let manual = manual();
    for fate in Fate::ALL {
        assert!(manual.contains(&format!("`{}`", fate.name())), "{fate:?}");
    }
    assert!(manual.contains(&format!("a host, at most {HOSTS}")));
    assert!(manual.contains(&format!("a link, at most {LINKS}")));
    assert!(manual.contains("first 10,000,000 records"));
    assert_eq!(mplane_lab::log::RECORDS, 10_000_000);
    assert!(manual.contains(&format!("\n{}), length of", mplane_lab::log::RECORD_BYTES)));
    assert_eq!(mplane_lab::log::VERSION, 1);
}
