//! What is read, what is refused and where, and what routes follow from it.

use super::*;

/// Two hosts with a router between them.
const LINE: &str = r#"
    [[host]]
    name = "a"
    [[host]]
    name = "r"
    router = true
    [[host]]
    name = "b"
    prefixes = ["10.99.0.0/16"]
    [[link]]
    between = ["a", "r"]
    [[link]]
    between = ["r", "b"]
    both = { delay = "10ms", loss = 0.01 }
    forth = { rate = "10Mbit/s", delay = "20ms" }
    [[link.change]]
    at = "1.5s"
    back = { loss = 1 }
"#;

/// Parses a topology.
fn parse(text: &str) -> Topology {
    Topology::parse(text, "lab").unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// The routes of a host, as text.
fn routes_of(topology: &Topology, host: &str) -> Vec<String> {
    let host = topology.host(host).expect("a host");
    let list = routes(topology).swap_remove(host);
    let text = |route: Route| {
        let via = route.gateways.iter().map(|gateway| gateway.address.to_string());
        format!("{} via {}", route.network, via.collect::<Vec<_>>().join(" "))
    };
    list.into_iter().map(text).collect()
}

#[test]
fn a_line_has_addresses_shapes_and_routes() {
    let line = parse(LINE);
    let addresses: Vec<_> = line.addresses(1).map(|ip| ip.to_string()).collect();
    assert_eq!(addresses, ["10.0.1.2", "fd00:0:0:1::2", "10.0.2.1", "fd00:0:0:2::1"]);
    let [forth, back] = &line.links[1].shapes;
    assert_eq!(forth.delay, Duration::from_millis(20));
    assert_eq!(back.delay, Duration::from_millis(10));
    assert_eq!(forth.rate_bps.map(std::num::NonZero::get), Some(10_000_000));
    assert_eq!(back.rate_bps, None);
    assert_eq!(forth.loss, back.loss);
    let mut changed = back.clone();
    for (at, change) in &line.links[1].changes[1] {
        assert_eq!(*at, Duration::from_millis(1500));
        change.apply(&mut changed);
    }
    assert_eq!(changed.loss, crate::emulate::Probability::ALWAYS);
    let expected = [
        "10.0.2.0/30 via 10.0.1.2",
        "fd00:0:0:2::/64 via fd00:0:0:1::2",
        "10.99.0.0/16 via 10.0.1.2",
    ];
    assert_eq!(routes_of(&line, "a"), expected);
    assert_eq!(routes_of(&line, "r"), ["10.99.0.0/16 via 10.0.2.2"]);
    assert_eq!(line.links[1].ends[0].interface, "to-b");
}

#[test]
fn equal_paths_share_a_route_and_hosts_that_do_not_forward_are_no_path() {
    let diamond = |is_router| {
        let text = format!(
            r#"
            families = ["ip4"]
            host = [
                {{ name = "a" }}, {{ name = "b" }}, {{ name = "r0", router = true }},
                {{ name = "r1", router = true }}, {{ name = "r2", router = {is_router} }},
                {{ name = "r3", router = true }},
            ]
            link = [
                {{ between = ["a", "r0"] }},
                {{ between = ["r0", "r1"] }},
                {{ between = ["r0", "r2"] }},
                {{ between = ["r1", "r3"] }},
                {{ between = ["r2", "r3"] }},
                {{ between = ["r3", "b"] }},
            ]
            "#
        );
        parse(&text)
    };
    let shared = "10.0.6.0/30 via 10.0.2.2 10.0.3.2".to_owned();
    assert!(routes_of(&diamond(true), "r0").contains(&shared));
    let single = "10.0.6.0/30 via 10.0.2.2".to_owned();
    assert!(routes_of(&diamond(false), "r0").contains(&single));
    // What is beside a host that does not forward is still reached, the right way round.
    let far = "10.0.5.0/30 via 10.0.2.2".to_owned();
    assert!(routes_of(&diamond(false), "r0").contains(&far));
}

#[test]
fn parallel_links_have_names_of_their_own() {
    let text = r#"
        host = [{ name = "a" }, { name = "b" }]
        link = [{ between = ["a", "b"] }, { between = ["b", "a"] }]
    "#;
    let names = parse(text).links.into_iter().map(|link| link.ends[0].interface.clone());
    assert_eq!(names.collect::<Vec<_>>(), ["to-b", "to-a.2"]);
}

#[test]
fn refuses_what_is_wrong_and_names_the_place() {
    let hosts = "host = [{ name = \"a\" }, { name = \"b\" }]\n";
    let link =
        |rest: &str| format!("{hosts}link = [{{ between = [\"a\", \"b\"]{rest} }}]");
    let cases = [
        (format!("{hosts}link = [{{ between = [\"a\", \"c\"] }}]"), "2:27: there is no host c"),
        (format!("{hosts}link = [{{ between = [\"a\", \"a\"] }}]"), "2:21: a link joins two"),
        ("host = [{ name = \"a\" }, { name = \"a\" }]\nlink = []".into(), "1:34: there is a second host a"),
        ("host = [{ name = \"A\" }]\nlink = []".into(), "1:18: \"A\" is no name of a host"),
        ("host = [{ name = \"a\", ruoter = true }]\nlink = []".into(), "1:23: unknown field `ruoter`"),
        (link(", both = { dealy = \"1s\" }"), "2:42: unknown field `dealy`"),
        (link(", both = { delay = \"1 parsec\" }"), "2:50: \"1 parsec\" is no duration"),
        (link(", both = { delay = 10 }"), "2:50: invalid type: integer"),
        (link(", both = { delay = \"25h\" }"), "2:50: 25h is longer than a day"),
        (link(", both = { loss = 1.5 }"), "2:49: a probability is a number from 0 to 1"),
        (link(", both = { loss = nan }"), "2:49: a probability is a number from 0 to 1"),
        (link(", both = { rate = \"10 MB\" }"), "2:49: \"10 MB\" is no rate"),
        (link(", both = { rate = \"1bit/s\" }"), "2:49: 1bit/s is too slow"),
        (link(", mtu = 1000"), "2:39: an MTU of 1000 is not possible here, it is from 1280"),
        (link(", addresses = [[\"10.1.0.1/24\"], [\"10.2.0.1/24\"]]"), "2:45: both ends need"),
        (link(", addresses = [[\"10.1.0.1\"], [\"10.1.0.2/24\"]]"), "2:46: \"10.1.0.1\" is no address"),
        (link(", change = [{ at = \"2s\" }, { at = \"1s\" }]"), "2:65: changes are written in the order"),
        ("host = [{ name = \"a\", prefixes = [\"10.9.0.1/16\"] }]\nlink = []".into(), "1:35: 10.9.0.1/16 is no network; 10.9.0.0/16 is"),
        ("host = [{ name = \"a\", run = [[]] }]\nlink = []".into(), "1:30: a program is a list"),
        ("host = [{ name = \"a\", prefixes = [\"10.0.0.0/8\"] }, { name = \"b\" }]\nlink = [{ between = [\"a\", \"b\"] }]".into(), "1:35: 10.0.0.0/8 overlaps 10.0.1.0/30"),
        ("name = \"Lab\"\nhost = []\nlink = []".into(), "1:8: \"Lab\" is no name of a lab"),
        ("host = [\nlink".into(), "2:5: unclosed array"),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let error = Topology::parse(&text, "lab").expect_err(&text);
        let error = error.at(Path::new("f"), &text).to_string();
        if !error.starts_with(&format!("f:{expected}")) {
            wrong.push(format!("{text}\nsays     {error}\nexpected f:{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn limits_hold_at_their_values_and_not_beyond() {
    let with = |hosts: usize, links: usize| {
        let host = |number| format!("[[host]]\nname = \"h{number}\"\n");
        let link = |number| {
            let (one, other) = (number % 8, 8 + number / 8);
            format!("[[link]]\nbetween = [\"h{one}\", \"h{other}\"]\n")
        };
        let parts: Vec<_> = (0..hosts).map(host).chain((0..links).map(link)).collect();
        Topology::parse(&parts.concat(), "lab")
    };
    assert!(with(HOSTS, LINKS).is_ok());
    let error = with(HOSTS + 1, 1).expect_err("too many").to_string();
    assert_eq!(error, "33 hosts, there may be 32");
    let error = with(HOSTS, LINKS + 1).expect_err("too many").to_string();
    assert_eq!(error, "65 links, there may be 64");
    let parallel = |count| {
        let links = "[[link]]\nbetween = [\"a\", \"b\"]\n".repeat(count);
        Topology::parse(
            &format!("[[host]]\nname = \"a\"\n[[host]]\nname = \"b\"\n{links}"),
            "lab",
        )
    };
    assert!(parallel(PARALLEL).is_ok());
    assert!(parallel(PARALLEL + 1).is_err());
}
