//! Tests of constraints: examples, then properties.

use proptest::prelude::*;

use super::*;

fn constraint(primitive: Primitive, text: &str) -> Constraint {
    Constraint::parse(primitive, text).unwrap()
}

fn meets(primitive: Primitive, text: &str, value: &str) -> bool {
    let constraint = constraint(primitive, text);
    let value = constraint.parse_value(primitive, value).unwrap();
    constraint.is_met_by(value.as_ref())
}

/// Returns the text of what two constraints have in common.
fn common(primitive: Primitive, one: &str, other: &str) -> String {
    let (one, other) = (constraint(primitive, one), constraint(primitive, other));
    let both = one.intersect(&other);
    assert_eq!(both, other.intersect(&one));
    both.map_or_else(|| "nothing".to_owned(), |both| both.to_string())
}

#[test]
fn sets_are_sorted_and_blanks_around_members_ignored() {
    let set = constraint(Primitive::Natural, "10, 9,9");
    assert_eq!(set.to_string(), "9,10");
    assert_eq!(constraint(Primitive::String, "foo, bar").to_string(), "bar,foo");
}

#[test]
fn ranges_include_both_ends_and_may_be_reversed() {
    assert_eq!(constraint(Primitive::Natural, "5 ... 1").to_string(), "1 ... 5");
    assert_eq!(constraint(Primitive::Natural, "0..32").to_string(), "0 ... 32");
    assert!(meets(Primitive::Natural, "1 ... 5", "5"));
    assert!(!meets(Primitive::Natural, "1 ... 5", "6"));
    assert!(meets(Primitive::Real, "0 ... 1", "-0"));
    assert!(!meets(Primitive::Real, "0 ... 1", "nan"));
    assert!(!meets(Primitive::Address, "10.0.0.1 ... 10.0.0.9", "::1"));
    assert!(meets(Primitive::Address, "10.0.0.0 ... 10.255.255.255", "10.1.0.0/16"));
    assert!(!meets(Primitive::Address, "10.0.0.0 ... 10.1.0.0", "10.0.0.0/8"));
    assert!(!meets(Primitive::Time, "2015-06-01 ... 2015-06-02", "now"));
}

#[test]
fn networks_in_sets_stand_for_what_is_inside() {
    assert!(meets(Primitive::Address, "10.0.0.0/8,192.0.2.7", "10.3.4.5"));
    assert!(meets(Primitive::Address, "10.0.0.0/8,192.0.2.7", "192.0.2.7"));
    assert!(!meets(Primitive::Address, "10.0.0.0/8", "192.0.2.7"));
    assert!(meets(Primitive::Address, "10.0.0.0/9,10.128.0.0/9", "10.0.0.0/8"));
    assert_eq!(constraint(Primitive::Address, "10.0.0.0/8").single_value(), None);
    let set = constraint(Primitive::Address, "10.1.2.3,10.0.0.0/8,::1,10.2.0.0/16");
    assert_eq!(set.to_string(), "10.0.0.0/8,::1");
    let range = constraint(Primitive::Address, "10.2.0.0/16 ... 10.0.0.0/16");
    assert_eq!(range.to_string(), "10.0.0.0 ... 10.2.255.255");
}

#[test]
fn those_who_know_no_networks_get_ranges() {
    let plain = |text| {
        let range = constraint(Primitive::Address, text).without_networks();
        range.map(|range| range.to_string())
    };
    assert_eq!(plain("10.0.0.0/8").unwrap(), "10.0.0.0 ... 10.255.255.255");
    assert_eq!(plain("[10.0.0.0/31]").unwrap(), "[10.0.0.0 ... 10.0.0.1]");
    assert_eq!(plain("10.0.0.1,::1").unwrap(), "10.0.0.1,::1");
    assert_eq!(plain("10.0.0.0/8,::1"), None);
}

#[test]
fn lists_have_values_that_each_meet_the_constraint() {
    assert!(meets(Primitive::Natural, "[1 ... 10]", "1 2  10"));
    assert!(!meets(Primitive::Natural, "[1 ... 10]", "1 2 11"));
    assert!(meets(Primitive::Natural, "[1 ... 10]", "7"));
    assert!(meets(Primitive::Time, "[*]", "2015-06-01 2015-06-02"));
    assert!(meets(Primitive::Natural, "[*]", "*"));
    assert!(!meets(Primitive::Natural, "[1]", "*"));
    let several = constraint(Primitive::Natural, "[*]");
    assert_eq!(several.to_string(), "[*]");
    let list = several.parse_value(Primitive::Natural, "1 2").unwrap();
    assert!(!Constraint::Any.is_met_by(list.as_ref()));
    assert!(!constraint(Primitive::Natural, "1,2").is_met_by(list.as_ref()));
}

#[test]
fn only_the_unconstrained_allow_no_value() {
    assert!(Constraint::Any.is_met_by(None));
    assert!(!constraint(Primitive::Natural, "1").is_met_by(None));
}

#[test]
fn intersections_allow_what_both_allow() {
    use Primitive::{Address, Natural, String};
    assert_eq!(common(Natural, "*", "1 ... 5"), "1 ... 5");
    assert_eq!(common(Natural, "1 ... 5", "4 ... 9"), "4 ... 5");
    assert_eq!(common(Natural, "1 ... 5", "6 ... 9"), "nothing");
    assert_eq!(common(Natural, "1,2,3", "2 ... 9"), "2,3");
    assert_eq!(common(String, "a,b", "b,c"), "b");
    assert_eq!(common(Address, "10.0.0.0/8", "10.1.0.0/16,11.0.0.0/8"), "10.1.0.0/16");
    assert_eq!(
        common(Address, "10.0.0.0/8", "10.255.0.0 ... 11.0.0.0"),
        "10.255.0.0 ... 10.255.255.255"
    );
    assert_eq!(
        common(Address, "10.0.0.0/8,11.0.0.0", "10.255.255.254 ... 11.0.0.0"),
        "10.255.255.254/31,11.0.0.0"
    );
    assert_eq!(common(Address, "10.0.0.1 ... 10.0.0.9", "::1 ... ::2"), "nothing");
    assert_eq!(common(Natural, "[1 ... 5]", "[4 ... 9]"), "[4 ... 5]");
    assert_eq!(common(Natural, "[1 ... 5]", "4,9"), "4");
}

#[test]
fn contains_what_allows_nothing_else() {
    let contains = |one, other| {
        constraint(Primitive::Natural, one)
            .contains(&constraint(Primitive::Natural, other))
    };
    assert!(contains("*", "1 ... 5") && !contains("1 ... 5", "*"));
    assert!(contains("1 ... 5", "2,3") && !contains("1 ... 5", "2,6"));
    assert!(contains("1,2,3", "1 ... 3") && !contains("1,3", "1 ... 3"));
    assert!(contains("1 ... 5", "2 ... 5") && !contains("2 ... 5", "1 ... 5"));
    assert!(contains("[1 ... 5]", "[2]") && contains("[1 ... 5]", "2"));
    assert!(!contains("*", "[2]"));
}

#[test]
fn errors_name_the_part() {
    for (primitive, text, message) in [
        (
            Primitive::Natural,
            "1,x",
            "a member of a set: \"x\" is not of type natural: expected an integer that \
             is not negative, such as 42",
        ),
        (
            Primitive::Natural,
            "* ... 5",
            "an end of a range is not a value; write * alone to allow every value",
        ),
        (
            Primitive::Natural,
            "1 ... 2 ... 3",
            "\"1 ... 2 ... 3\" has more than two ends; a range is written low ... high",
        ),
        (
            Primitive::Address,
            "10.0.0.1 ... ::1",
            "there is no range from 10.0.0.1 to ::1",
        ),
        (Primitive::Time, "past ... now", "there is no range from past to now"),
        (
            Primitive::String,
            "[[a]]",
            "[ before the first value and ] after the last enclose a list, and lists do \
             not nest",
        ),
    ] {
        let error = Constraint::parse(primitive, text).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn refuses_sets_beyond_the_limit() {
    let most = vec!["1"; limits::CONSTRAINT_MEMBERS].join(",");
    assert!(Constraint::parse(Primitive::Natural, &most).is_ok());
    let error = Constraint::parse(Primitive::Natural, &format!("{most},1")).unwrap_err();
    assert_eq!(error.to_string(), "a set has at most 65536 members");
}

/// Makes the text of values of one type, few enough to meet each other's constraints.
fn values(primitive: Primitive) -> BoxedStrategy<String> {
    match primitive {
        Primitive::Natural => (0..9_u64).prop_map(|n| n.to_string()).boxed(),
        Primitive::Real => {
            prop::sample::select(vec!["-0", "0", "0.5", "1", "inf", "-inf", "nan"])
                .prop_map(str::to_owned)
                .boxed()
        }
        Primitive::Bool => any::<bool>().prop_map(|b| b.to_string()).boxed(),
        Primitive::Time => {
            prop::sample::select(vec!["past", "now", "2015-06-01", "2015-06-02 10:00"])
                .prop_map(str::to_owned)
                .boxed()
        }
        Primitive::Address => prop_oneof![
            (0..8_u8).prop_map(|n| format!("10.0.0.{n}")),
            (0..8_u8, 29..=32_u8).prop_map(|(n, length)| {
                let mask = 0xff_u8.checked_shl(32 - u32::from(length)).unwrap_or(0);
                format!("10.0.0.{}/{length}", n & mask)
            }),
            (0..4_u8).prop_map(|n| format!("::{n}")),
            prop::sample::select(vec![
                "::/127",
                "fe80::1%eth0",
                "fe80::/10",
                "0.0.0.0/0"
            ])
            .prop_map(str::to_owned),
        ]
        .boxed(),
        Primitive::String | Primitive::Url | Primitive::Object => {
            prop::sample::select(vec!["a", "b", "", "[a", "b]", "a ... b", "*", "é"])
                .prop_map(str::to_owned)
                .boxed()
        }
    }
}

/// Makes the text of constraints on values of one type; some are refused.
fn constraints(primitive: Primitive) -> BoxedStrategy<String> {
    let value = values(primitive);
    let single = prop_oneof![
        Just("*".to_owned()),
        prop::collection::vec(value.clone(), 1..4).prop_map(|set| set.join(",")),
        (value.clone(), value).prop_map(|(one, other)| format!("{one} ... {other}")),
    ];
    (single, any::<bool>())
        .prop_map(|(single, list)| if list { format!("[{single}]") } else { single })
        .boxed()
}

/// Makes a type with two constraints on it and some values.
fn samples() -> impl Strategy<Value = (Primitive, String, String, Vec<String>)> {
    prop::sample::select(vec![
        Primitive::String,
        Primitive::Natural,
        Primitive::Real,
        Primitive::Bool,
        Primitive::Time,
        Primitive::Address,
        Primitive::Url,
    ])
    .prop_flat_map(|primitive| {
        (
            Just(primitive),
            constraints(primitive),
            constraints(primitive),
            prop::collection::vec(values(primitive), 1..12),
        )
    })
}

proptest! {
    #[test]
    fn reads_what_it_prints((primitive, text, _, _) in samples()) {
        if let Ok(constraint) = Constraint::parse(primitive, &text) {
            let printed = constraint.to_string();
            prop_assert_eq!(Constraint::parse(primitive, &printed).unwrap(), constraint);
        }
    }

    #[test]
    fn the_algebra_agrees_with_values((primitive, one, other, values) in samples()) {
        let parsed =
            (Constraint::parse(primitive, &one), Constraint::parse(primitive, &other));
        let (Ok(one), Ok(other)) = parsed else { return Ok(()) };
        let both = one.intersect(&other);
        prop_assert_eq!(&both, &other.intersect(&one));
        prop_assert!(one.contains(&one));
        if let Some(both) = &both {
            prop_assert!(one.contains(both), "{} in {}", both, one);
            prop_assert!(other.contains(both), "{} in {}", both, other);
        }
        let all: Option<Vec<_>> = values
            .iter()
            .filter_map(|value| Value::parse(primitive, value).transpose())
            .collect::<Result<_, _>>()
            .ok();
        let all = all.unwrap_or_default();
        let list = List::new(all.clone()).map(Value::List);
        for value in all.iter().chain(&list).map(Some).chain([None]) {
            let met = one.is_met_by(value) && other.is_met_by(value);
            let allowed = both.as_ref().is_some_and(|both| both.is_met_by(value));
            prop_assert_eq!(met, allowed, "{:?} {} {}", value, one, other);
            if one.contains(&other) && other.is_met_by(value) {
                prop_assert!(one.is_met_by(value), "{:?} {} {}", value, one, other);
            }
        }
    }

    #[test]
    fn refuses_other_text_without_failing(text in any::<String>()) {
        for name in ["string", "natural", "real", "bool", "time", "address", "object"] {
            drop(Constraint::parse(name.parse().unwrap(), &text));
        }
    }
}
