//! Temporal scopes against answers recorded from the reference implementation.
//!
//! `vectors/when.json` holds the recorded answers, `vectors/differences-when.json` those
//! that are decided otherwise in section 5 of the protocol description, each with the
//! decision and the answer that holds here. Three differences that concern whole classes
//! of cases are rules in this file: [`single_instant`], [`seconds_between`] and
//! [`past_anchored_delays`]. Where the reference fails to say whether a specification
//! follows a capability, it does not carry it out, which counts as "no". Every case of the vectors is run, and every difference must
//! be one.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mplane::when::{Instant, When, display_duration, display_timestamp, parse_duration};
use serde_json::Value;

/// What the reference implementation answered.
const RECORDED: &str = include_str!("../vectors/when.json");

/// What is decided otherwise.
const DIFFERENCES: &str = include_str!("../vectors/differences-when.json");

#[test]
fn reads_and_prints_scopes() {
    let differences = differences("scopes", "input");
    let mut checked = 0;
    for case in recorded("scopes") {
        let input = text(&case["input"]);
        let parsed = input.parse::<When>();
        checked += 1;
        let recorded =
            case["accepted"].as_bool().unwrap().then(|| text(&case["canonical"]));
        let mut expected = recorded;
        if let Some(difference) = differences.get(input) {
            expected = difference["canonical"].as_str();
            assert_ne!(expected, recorded, "no difference: {input:?}");
        }
        let hash_text = parsed.as_ref().ok().map(When::hash_text);
        assert_eq!(hash_text.as_deref(), expected, "{input:?}");

        let Ok(when) = parsed else { continue };
        assert_eq!(when.hash_text().parse().as_ref(), Ok(&when), "{input:?}");
        assert_eq!(when.to_string().parse().as_ref(), Ok(&when), "{input:?}");
        if !when.to_string().contains('*') {
            assert_eq!(when.to_string(), when.hash_text().trim_end(), "{input:?}");
        }
    }
    assert_eq!(checked, 152);
}

#[test]
fn answers_questions_about_scopes() {
    let differences = differences("scopes", "input");
    let now = now();
    let (mut checked, mut anchored) = (0, 0);
    for case in recorded("scopes") {
        let input = text(&case["input"]);
        if case["accepted"] == false || differences.contains_key(input) {
            continue;
        }
        let when: When = input.parse().unwrap();
        checked += 1;

        assert_eq!(when.is_definite(), case["is_definite"], "{input:?}");
        assert_eq!(when.is_forever(), case["is_forever"], "{input:?}");
        assert_eq!(when.is_future(), case["is_future"], "{input:?}");
        assert_eq!(when.is_immediate(), case["is_immediate"], "{input:?}");
        assert_eq!(when.is_infinite(), case["is_infinite"], "{input:?}");
        assert_eq!(when.is_past(), case["is_past"], "{input:?}");
        assert_eq!(when.is_repeated(), case["repeated"], "{input:?}");
        assert_eq!(when.is_singleton(), single_instant(&case), "{input:?}");
        assert_eq!(when.period(), seconds(&case["period_s"]), "{input:?}");

        let bounds = when.bounds(now);
        assert_eq!(bounds.start, timestamp(&case["datetimes"][0]), "{input:?}");
        assert_eq!(bounds.end, timestamp(&case["datetimes"][1]), "{input:?}");

        let duration = when.duration(now);
        let delays = when.delays(now).map(|delays| (delays.start, delays.end));
        if is_failure(&case["timer_delays_s"]) {
            anchored += 1;
            assert_eq!(bounds.start, None, "{input:?}");
            assert_eq!(duration, None, "{input:?}");
            assert_eq!(delays, Some(past_anchored_delays(&case)), "{input:?}");
        } else {
            assert_eq!(duration, seconds_between(&case), "{input:?}");
            let recorded = &case["timer_delays_s"];
            let expected =
                seconds(&recorded[0]).map(|start| (start, seconds(&recorded[1])));
            assert_eq!(delays, expected, "{input:?}");
        }
        let same_time = when.resolve(now);
        assert_eq!(same_time.bounds(now + Duration::from_secs(1)), bounds, "{input:?}");
    }
    assert_eq!((checked, anchored), (74, 7));
}

#[test]
fn iterates_over_repeats() {
    let differences = differences("iterators", "input");
    let mut checked = 0;
    for case in recorded("iterators") {
        let input = text(&case["input"]);
        let now = timestamp(&case["tzero"]).unwrap();
        let difference = differences.get(input);
        checked += 1;
        if difference.is_some_and(|difference| difference["first"].is_null()) {
            assert!(input.parse::<When>().is_err(), "{input:?}");
            continue;
        }
        let when: When = input.parse().unwrap();
        let expected: Vec<String> = match difference {
            Some(difference) => array(&difference["first"]).iter().map(owned).collect(),
            None => {
                array(&case["first"]).iter().map(|o| owned(&o["canonical"])).collect()
            }
        };
        let mut occurrences = when.occurrences(now).unwrap();
        let first: Vec<_> = occurrences.by_ref().take(expected.len()).collect();
        let printed: Vec<_> = first.iter().map(When::hash_text).collect();
        assert_eq!(printed, expected, "{input:?}");

        let exhausted = occurrences.next().is_none();
        // A search that the reference had to give up found nothing.
        let ended = text(&case["ended"]);
        let recorded = ended == "exhausted" || ended.starts_with("no match");
        let expected = difference.map_or(recorded, |d| d["exhausted"] == true);
        assert_eq!(exhausted, expected, "{input:?}");
        if difference.is_none() {
            for (ours, recorded) in first.iter().zip(array(&case["first"])) {
                let duration = seconds(&recorded["duration_s"]).unwrap_or_default();
                assert_eq!(ours.bounds(now).start, timestamp(&recorded["start"]));
                assert_eq!(ours.duration(now), Some(duration));
                assert_eq!(ours.period(), seconds(&recorded["period_s"]));
            }
        }
    }
    assert_eq!(checked, 34);
}

#[test]
fn places_instants_in_scopes() {
    let now = now();
    let mut checked = 0;
    for case in recorded("in_scope") {
        let when: When = text(&case["scope"]).parse().unwrap();
        let instant = match text(&case["time"]).parse().unwrap() {
            Instant::At(timestamp) => timestamp,
            _ => now,
        };
        checked += 1;
        assert_eq!(when.contains(instant, now), case["in_scope"], "{case}");
        let offset = case["sort_scope_s"].as_f64().unwrap();
        let offset = SignedDuration::try_from_secs_f64(offset).unwrap();
        assert_eq!(when.offset_of(instant, now), offset, "{case}");
    }
    assert_eq!(checked, 53);
}

#[test]
fn judges_specifications_by_capabilities() {
    let decided: BTreeMap<_, _> = section(DIFFERENCES, "follows")
        .into_iter()
        .flat_map(|group| array(&group["rows"]).clone())
        .map(|row| ((owned(&row[0]), owned(&row[1])), row[2].clone()))
        .collect();
    let now = now();
    let (mut checked, mut different, mut strict) = (0, 0, 0);
    for row in recorded("follows") {
        let (specification, capability) = (text(&row[0]), text(&row[1]));
        let capability: When = capability.parse().unwrap();
        let pair = (owned(&row[0]), owned(&row[1]));
        checked += 1;
        let recorded = row[2] == true;
        let expected = match decided.get(&pair) {
            Some(answer) => {
                assert_ne!(*answer, recorded, "no difference: {row}");
                different += 1;
                *answer == true
            }
            None => recorded,
        };
        // What is refused follows nothing.
        let Ok(when) = specification.parse::<When>() else {
            assert!(!expected, "{row}");
            continue;
        };
        assert_eq!(when.follows(&capability, now), expected, "{row}");
        let within = when.lies_within(&capability, now);
        assert!(!within || when.follows(&capability, now), "{row}");
        strict += usize::from(within);
    }
    assert_eq!((checked, different), (484, decided.len()));
    assert!((1..checked).contains(&strict), "{strict}");
}

#[test]
fn reads_and_prints_durations() {
    let differences = differences("durations", "input");
    let mut checked = 0;
    for case in recorded("durations") {
        let input = text(&case["input"]);
        let parsed = parse_duration(input).ok();
        checked += 1;
        let printed = parsed.map(|duration| display_duration(duration).to_string());
        let recorded = case["unparse"].as_str();
        let mut expected = recorded;
        if let Some(difference) = differences.get(input) {
            expected = difference["canonical"].as_str();
            assert_ne!(expected, recorded, "no difference: {input:?}");
        } else {
            assert_eq!(parsed, seconds(&case["seconds"]), "{input:?}");
        }
        assert_eq!(printed.as_deref(), expected, "{input:?}");
    }
    assert_eq!(checked, 16);
}

#[test]
fn reads_and_prints_times() {
    let mut checked = 0;
    for case in recorded("unparse_time_precision") {
        let parsed = text(&case["input"]).parse::<Instant>();
        checked += 1;
        if is_failure(&case["output"]) {
            assert!(parsed.is_err(), "{case}");
            continue;
        }
        // Microseconds are the only precision written here; others are its beginning.
        let printed = parsed.unwrap().to_string();
        assert!(printed.starts_with(text(&case["output"])), "{case}");
        if case["precision"] == "us" {
            assert_eq!(printed, case["output"], "{case}");
        }
    }
    assert_eq!(checked, 20);
}

#[test]
fn lists_only_differences_that_exist_and_are_decided() {
    for (kind, count) in [("scopes", 30), ("iterators", 8), ("durations", 7)] {
        let differences = differences(kind, "input");
        let inputs: Vec<_> =
            recorded(kind).iter().map(|case| owned(&case["input"])).collect();
        for (input, difference) in &differences {
            assert!(inputs.contains(input), "not recorded: {input:?}");
            assert!(!text(&difference["decision"]).is_empty(), "{input:?}");
        }
        assert_eq!(differences.len(), count, "{kind}");
    }
    let groups = section(DIFFERENCES, "follows");
    assert!(groups.iter().all(|group| !text(&group["decision"]).is_empty()));
    let rows: usize = groups.iter().map(|group| array(&group["rows"]).len()).sum();
    assert_eq!(rows, 13);
}

/// Returns whether a scope is a single instant; the reference says never.
fn single_instant(case: &Value) -> bool {
    assert_eq!(case["is_singleton"], false);
    case["b"].is_null() && case["stated_duration_s"].is_null()
}

/// Returns the recorded duration, which the reference gives as negative if the scope ends
/// before it starts, and which is zero here.
fn seconds_between(case: &Value) -> Option<Duration> {
    let recorded = case["duration_s"].as_f64()?;
    Some(Duration::try_from_secs_f64(recorded.max(0.0)).expect("it is finite"))
}

/// Returns when a scope that starts in the past is served: at once, and until its end. The
/// reference fails on these.
fn past_anchored_delays(case: &Value) -> (Duration, Option<Duration>) {
    assert!(text(&case["a"]).starts_with("past"));
    let end = timestamp(&case["datetimes"][1]);
    let stop = end.map(|end| end.duration_since(now()));
    (Duration::ZERO, stop.map(|stop| Duration::try_from(stop).unwrap_or_default()))
}

/// Returns the time at which the answers were recorded.
fn now() -> Timestamp {
    "2015-06-01T12:00:00Z".parse().expect("it is a time")
}

/// Returns one kind of recorded cases.
fn recorded(kind: &str) -> Vec<Value> {
    section(RECORDED, kind)
}

/// Returns the differences of one kind by their input.
fn differences(kind: &str, key: &str) -> BTreeMap<String, Value> {
    section(DIFFERENCES, kind)
        .into_iter()
        .map(|entry| (owned(&entry[key]), entry))
        .collect()
}

/// Returns an array of a file.
fn section(file: &str, kind: &str) -> Vec<Value> {
    let mut file: Value = serde_json::from_str(file).expect("the file is JSON");
    match file[kind].take() {
        Value::Array(cases) => cases,
        other => panic!("{kind} is no array but {other}"),
    }
}

/// Returns whether the reference failed.
fn is_failure(value: &Value) -> bool {
    value.get("error").is_some()
}

/// Returns a recorded number of seconds; `None` for null and failures.
fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().map(|seconds| {
        Duration::try_from_secs_f64(seconds).expect("it is finite and not negative")
    })
}

/// Returns a recorded time; `None` for null.
fn timestamp(value: &Value) -> Option<Timestamp> {
    let recorded = value.as_str()?;
    let Ok(Instant::At(timestamp)) = recorded.parse() else {
        panic!("{recorded:?} is no time");
    };
    assert_eq!(display_timestamp(timestamp).to_string(), recorded);
    Some(timestamp)
}

/// Returns the text of a value that is one.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Returns the text of a value that is one, as a copy.
fn owned(value: &Value) -> String {
    text(value).to_owned()
}

/// Returns the members of a value that is an array.
fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no array"))
}
