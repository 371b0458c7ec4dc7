//! What clients see of the directory, part by part.

use std::collections::BTreeSet;

use mplane::message::Statement;
use mplane::registry::Registries;

use super::*;

const NOON: Timestamp = Timestamp::UNIX_EPOCH;

fn probe(name: &str) -> Identity {
    Identity::new(["Demo", "Components", name].map(Into::into), Some("Components"))
}

fn capability(label: &str, source: &str) -> Capability {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled(label)
        .parameter(&registries, "source.ip4", source)
        .and_then(|s| s.parameter(&registries, "destination.ip4", "*"))
        .and_then(|s| s.column(&registries, "delay.twoway.icmp.us"))
        .unwrap();
    Capability::new(statement)
}

/// A directory in which `probes` components offer each of the labels.
fn directory(probes: u8, labels: &[&str]) -> Directory {
    let mut directory = Directory::default();
    for number in 0..probes {
        let from = probe(&format!("p{number}"));
        directory.arrive(&from, Features::OURS, Dialect::Envelope, NOON, NOON);
        for (index, label) in labels.iter().enumerate() {
            let source = format!("10.{index}.0.{number}");
            directory.register(&from, capability(label, &source));
        }
    }
    directory
}

/// Lists everything in parts of a size; `between` them the directory may change.
fn list(
    directory: &mut Directory,
    most: usize,
    mut between: impl FnMut(&mut Directory),
) -> (Vec<Offer>, Vec<(String, usize)>) {
    let (mut offers, mut wholes, mut after) = (Vec::new(), Vec::new(), 0);
    loop {
        let part = directory.list(&|_, _| true, after, most, NOON);
        assert!(part.offers.len() <= most);
        offers.extend(part.offers);
        wholes.extend(part.wholes.into_iter().map(|(label, alike)| (label, alike.len())));
        let Some(next) = part.next else { return (offers, wholes) };
        assert!(next > after, "it goes on");
        after = next;
        between(directory);
    }
}

#[test]
fn parts_of_the_list_make_the_whole_whatever_their_size() {
    let mut directory = directory(9, &["ping", "trace"]);
    let (at_once, wholes) = list(&mut directory, 100, |_| {});
    assert_eq!(at_once.len(), 18);
    assert_eq!(wholes, [("ping".to_owned(), 9), ("trace".to_owned(), 9)]);
    let labels = |offers: &[Offer]| -> Vec<_> {
        offers.iter().map(|it| it.shown.label().map(ToOwned::to_owned)).collect()
    };
    assert!(labels(&at_once).contains(&Some("ping@p3".to_owned())));
    for most in [1, 2, 7, 18] {
        let (in_parts, same) = list(&mut directory, most, |_| {});
        assert_eq!((labels(&in_parts), &same), (labels(&at_once), &wholes), "{most}");
    }
    assert!(list(&mut Directory::default(), 1, |_| {}).0.is_empty());
}

#[test]
fn what_changes_between_two_parts_costs_nothing_that_was_there() {
    let mut directory = directory(9, &["ping"]);
    let mut number = 100;
    let (offers, _) = list(&mut directory, 2, |directory| {
        // One is new, one is registered again as it was, and one goes.
        let from = probe(&format!("p{number}"));
        number += 1;
        if number < 105 {
            directory.arrive(&from, Features::OURS, Dialect::Envelope, NOON, NOON);
            directory.register(&from, capability("ping", "10.0.1.1"));
        }
        directory.register(&probe("p7"), capability("ping", "10.0.0.7"));
        let gone = capability("ping", "10.0.0.0").token();
        directory.withdraw(&probe("p0"), &gone);
    });
    let seen: Vec<_> = offers.iter().map(|it| it.component.common_name()).collect();
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "none twice: {seen:?}");
    for there in ["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p100", "p103"] {
        assert!(seen.contains(&there), "{there} in {seen:?}");
    }
}

#[test]
fn every_capability_is_found_by_the_token_under_which_it_is_shown() {
    let mut directory = directory(3, &["ping"]);
    // Unique labels, and two components of one common name.
    let twin = Identity::new(["Other", "p0"].map(Into::into), Some("Components"));
    let own = [(&twin, "ping"), (&twin, "own"), (&probe("p1"), "other")];
    for (index, (from, label)) in own.into_iter().enumerate() {
        directory.arrive(from, Features::OURS, Dialect::Envelope, NOON, NOON);
        directory.register(from, capability(label, &format!("10.9.9.{index}")));
    }
    let (offers, _) = list(&mut directory, 2, |_| {});
    assert_eq!(offers.len(), 6);
    for offer in &offers {
        let token = offer.shown.token();
        let found = directory.find_offer(token.as_str(), &|_, _| true, NOON);
        let found = found.unwrap_or_else(|| panic!("{token} is not found"));
        assert_eq!((&found.component, &found.shown), (&offer.component, &offer.shown));
        let hidden = directory.find_offer(token.as_str(), &|_, _| false, NOON);
        assert!(hidden.is_none(), "{token} is withheld");
    }
    let tokens: BTreeSet<_> = offers.iter().map(|it| it.shown.token()).collect();
    assert_eq!(tokens.len(), offers.len());
    assert!(directory.find_offer("no such token", &|_, _| true, NOON).is_none());
    // Nothing is left behind.
    for offer in &offers {
        let known = directory.component(&offer.component).unwrap();
        let all: Vec<_> = known.capabilities().map(Capability::token).collect();
        for token in all {
            directory.withdraw(&offer.component, &token);
        }
    }
    assert!(directory.by_token.is_empty() && directory.by_order.is_empty());
    assert!(directory.by_label.is_empty() && directory.by_schema.is_empty());
}
