//! Tests of the questions to a scope, and properties of the whole module.
//!
//! Source: protocol description, section 5, "Temporal scope (`when`)".

use std::time::Duration;

use jiff::civil::Weekday;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{Delays, Instant, When, display_duration, display_timestamp, parse_duration};

/// Reads a scope.
fn scope(text: &str) -> When {
    text.parse().unwrap()
}

/// Returns noon on 1 June 2015, a Monday.
fn noon() -> Timestamp {
    "2015-06-01T12:00:00Z".parse().unwrap()
}

/// Returns a duration in seconds.
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn builds_what_is_written() {
    let now = noon();
    assert_eq!(When::now(), scope("now"));
    assert_eq!(When::past_to_future(), scope("past ... future"));
    assert_eq!(When::now_to_future(), scope("now ... future"));
    assert_eq!(When::past_to_now(), scope("past ... now"));
    assert_eq!(When::at(now), scope("2015-06-01 12:00"));
    assert_eq!(
        When::between(now, now + seconds(1)),
        scope("2015-06-01 12:00 ... 2015-06-01 12:00:01")
    );
    assert_eq!(
        When::now_for(seconds(90)).with_period(Some(seconds(1))),
        scope("now + 90s / 1s")
    );
}

#[test]
fn a_repeat_keeps_a_period() {
    let every = scope("repeat now + 1h / 1m { now + 5s / 1s }");
    assert_eq!(every.clone().with_period(None), every);
    assert_eq!(every.clone().with_period(Some(Duration::ZERO)), every);
    assert_eq!(every.clone().with_period(Some(Duration::from_nanos(1))), every);
    assert_eq!(
        every.with_period(Some(seconds(120))),
        scope("repeat now + 1h / 2m { now + 5s / 1s }")
    );
    let cron = scope("repeat now + 1h cron 0 * * * * *");
    assert_eq!(cron.clone().with_period(Some(seconds(1))), cron);
    assert_eq!(scope("now / 1s").with_period(None), scope("now"));
}

#[test]
fn writes_crontabs_and_inner_scopes_out_for_hashing() {
    let when = scope("repeat now + 1h cron 0 0 * 1 7 1,2 { now + 5s / 1s }");
    assert_eq!(
        when.hash_text(),
        "repeat now + 1h cron 0 0 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,\
         22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,\
         49,50,51,52,53,54,55,56,57,58,59 1 7 1,2 { now + 5s / 1s } "
    );
    assert_eq!(scope(&when.hash_text()), when);
}

#[test]
fn knows_durations_that_the_reference_cannot_read() {
    for text in [
        "now + 1.5s",
        "now + 2s / 0.5s",
        "now ... future / 1m0.5s",
        "repeat now + 1h / 1.5s",
        "repeat now + 1h / 1m { now + 0.5s }",
        "repeat now + 1h cron * * * * * * { now + 1s / 0.5s }",
    ] {
        assert!(scope(text).has_fraction(), "{text}");
    }
    assert!(!scope("2015-06-01 12:00:00.5 + 2s / 1s").has_fraction());
    assert!(!scope("repeat now + 1h / 1m { now + 5s / 1s }").has_fraction());
}

#[test]
fn serves_the_past_at_once() {
    let delays = |text| scope(text).delays(noon());
    let at_once = |end| Some(Delays { start: Duration::ZERO, end });
    assert_eq!(delays("past ... now"), at_once(Some(Duration::ZERO)));
    assert_eq!(delays("past ... future"), at_once(None));
    assert_eq!(delays("past ... 2015-05-01"), at_once(Some(Duration::ZERO)));
    assert_eq!(delays("past ... 2015-06-01 12:01"), at_once(Some(seconds(60))));
}

#[test]
fn gives_up_scopes_whose_end_has_passed() {
    let delays = |text| scope(text).delays(noon());
    assert_eq!(delays("2015-05-01 ... 2015-06-01 11:59:59"), None);
    assert_eq!(delays("2015-06-03 ... 2015-06-02"), None);
    assert!(delays("2015-06-01 ... 2015-06-01 12:00").is_some());
}

#[test]
fn moves_ends_beyond_the_calendar_to_its_end() {
    let when = scope("2015-06-01 + 3652059d");
    let end = when.bounds(noon()).end.unwrap();
    assert_eq!(display_timestamp(end).to_string(), "9999-12-30 22:00:00.999999");
    assert_eq!(when.duration(noon()), Some(seconds(3_652_059 * 86_400)));
    assert!(when.delays(noon()).is_some());
}

#[test]
fn resolves_now_and_nothing_else() {
    let resolved = |text| scope(text).resolve(noon()).to_string();
    assert_eq!(resolved("now"), "2015-06-01 12:00:00.000000");
    assert_eq!(resolved("now + 5s / 1s"), "2015-06-01 12:00:00.000000 + 5s / 1s");
    assert_eq!(resolved("past ... now"), "past ... 2015-06-01 12:00:00.000000");
    assert_eq!(resolved("past ... future"), "past ... future");
    assert_eq!(
        resolved("repeat now ... future / 1m { now + 5s }"),
        "repeat 2015-06-01 12:00:00.000000 ... future / 1m { now + 5s }"
    );
}

#[test]
fn sees_an_instant_in_a_scope_of_the_same_microsecond() {
    let now = noon() + Duration::from_nanos(1_999);
    assert!(When::now().resolve(now).contains(now, now));
    assert_eq!(When::now().offset_of(noon(), now), SignedDuration::from_micros(-1));
}

#[test]
fn refuses_a_period_shorter_than_offered() {
    let follows = |mine, offered| scope(mine).follows(&scope(offered), noon());
    assert!(follows("now + 10s / 10s", "now ... future / 10s"));
    assert!(!follows("now + 10s / 9s", "now ... future / 10s"));
    assert!(!follows("now + 10s", "now ... future / 10s"));
    assert!(follows("repeat now + 1h / 1m { now + 10s / 10s }", "now ... future / 10s"));
    assert!(!follows("repeat now + 1h / 10s", "now ... future / 10s"));
}

#[test]
fn follows_by_one_end_but_lies_within_by_both() {
    let judge = |mine: &str, offered: &str| {
        let (mine, offered) = (scope(mine), scope(offered));
        (mine.follows(&offered, noon()), mine.lies_within(&offered, noon()))
    };
    let day = "2015-06-01 ... 2015-06-02";
    assert_eq!(judge("now + 1h / 1s", day), (true, true));
    assert_eq!(judge("now + 1d", day), (true, false));
    assert_eq!(judge("now ... future", day), (true, false));
    assert_eq!(judge("2015-05-31 ... 2015-06-01 12:00", day), (true, false));
    assert_eq!(judge("2015-05-31 ... now", day), (false, false));
    assert_eq!(judge("2015-05-31 ... 2015-06-03", day), (false, false));
    assert_eq!(judge("past ... now", day), (false, false));
    assert_eq!(judge("past ... 2015-06-01 10:00", "past ... now"), (true, true));
    assert_eq!(judge("past ... now", "past ... 2015-06-01"), (true, false));
    assert_eq!(judge("2015-06-01 18:00 ... 2015-06-01 06:00", day), (true, false));
}

#[test]
fn lets_the_last_measurement_of_a_repeat_end_in_time() {
    let hour = scope("now + 1h");
    let within = |text| scope(text).lies_within(&hour, noon());
    assert!(within("repeat now + 59m / 1m { now + 1m }"));
    assert!(!within("repeat now + 1h / 1m { now + 1m }"));
}

/// Makes durations that can be written: whole and fractional, short and long.
fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..200_000_u64).prop_map(Duration::from_secs),
        (0..3_000_000_u64).prop_map(Duration::from_micros),
        (0..=3_652_059_u64 * 86_400).prop_map(Duration::from_secs),
    ]
}

/// Makes timestamps within a few days of noon, and others anywhere in the calendar.
fn timestamps() -> impl Strategy<Value = Timestamp> {
    let near = noon().as_microsecond();
    prop_oneof![
        (near - 300_000_000_000..near + 300_000_000_000)
            .prop_map(|micros| Timestamp::from_microsecond(micros).unwrap()),
        (Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond())
            .prop_map(|nanos| Timestamp::from_nanosecond(nanos).unwrap()),
    ]
}

/// Makes the text of one field of a crontab, and the values it means.
fn fields(
    values: std::ops::RangeInclusive<i8>,
) -> impl Strategy<Value = (String, Vec<i8>)> {
    let all: Vec<_> = values.clone().collect();
    prop_oneof![
        Just(("*".to_owned(), all)),
        prop::collection::vec(values.clone(), 1..4).prop_map(|members| {
            let list: Vec<_> = members.iter().map(i8::to_string).collect();
            (list.join(","), members)
        }),
        (values.clone(), values).prop_map(|(one, other)| {
            let range = one.min(other)..=one.max(other);
            (format!("{}-{}", range.start(), range.end()), range.collect())
        }),
    ]
}

/// Makes the text of crontabs.
fn crontabs() -> impl Strategy<Value = String> {
    (
        fields(0..=59),
        fields(0..=59),
        fields(0..=59),
        fields(1..=31),
        fields(0..=7),
        fields(1..=12),
    )
        .prop_map(|(seconds, minutes, hours, days, weekdays, months)| {
            [seconds, minutes, hours, days, weekdays, months]
                .map(|(text, _)| text)
                .join(" ")
        })
}

/// Makes the text of scopes, of all forms and of any length.
fn scopes() -> impl Strategy<Value = String> {
    let start = prop_oneof![
        Just("now".to_owned()),
        timestamps().prop_map(|t| display_timestamp(t).to_string()),
    ];
    let end = prop_oneof![
        Just("now".to_owned()),
        Just("future".to_owned()),
        timestamps().prop_map(|t| display_timestamp(t).to_string()),
    ];
    let length = durations().prop_map(|d| display_duration(d).to_string()).boxed();
    let period = durations()
        .prop_filter("a repeat has a period", |d| !d.is_zero())
        .prop_map(|d| display_duration(d).to_string());
    let range = prop_oneof![
        (start.clone(), end.clone())
            .prop_map(|(start, end)| format!("{start} ... {end}")),
        end.prop_map(|end| format!("past ... {end}")),
        (start.clone(), length.clone())
            .prop_map(|(start, length)| format!("{start} + {length}")),
    ]
    .boxed();
    let inner = prop_oneof![
        Just(String::new()),
        length.clone().prop_map(|length| format!(" {{ now + {length} }}")),
        (length.clone(), length.clone())
            .prop_map(|(length, period)| format!(" {{ now + {length} / {period} }}")),
    ]
    .boxed();
    prop_oneof![
        start.clone(),
        range.clone(),
        (prop_oneof![start, range.clone()], length)
            .prop_map(|(range, period)| format!("{range} / {period}")),
        (range.clone(), period, inner.clone()).prop_map(
            |(range, period, inner)| format!("repeat {range} / {period}{inner}")
        ),
        (range, crontabs(), inner).prop_map(|(range, cron, inner)| format!(
            "repeat {range} cron {cron}{inner}"
        )),
    ]
}

/// Makes text that resembles scopes, most of it wrong.
fn near_scopes() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "now",
        "past",
        "future",
        "inf",
        "repeat ",
        " cron ",
        " ... ",
        " + ",
        " / ",
        " { ",
        " }",
        "2015-06-01",
        " 12:00",
        "T12:00:00.5",
        "Z",
        "1d",
        "2h",
        "3m",
        "4s",
        "1.5s",
        "*",
        " ",
        "0,30",
        "1-5",
        "7",
        "99999999999999999999",
        "-",
        ".",
        "é",
        "٢",
        "\0",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

/// Asks a scope everything, to see that nothing fails.
fn ask_everything(when: &When, other: &When, now: Timestamp) {
    when.bounds(now);
    when.duration(now);
    when.delays(now);
    when.offset_of(Timestamp::MIN, now);
    when.contains(Timestamp::MAX, now);
    when.follows(other, now);
    when.lies_within(other, now);
    when.has_fraction();
    when.occurrences(now).into_iter().flatten().take(3).for_each(drop);
}

proptest! {
    #[test]
    fn reads_what_it_prints(text in scopes()) {
        let when = scope(&text);
        prop_assert_eq!(scope(&when.to_string()), when.clone());
        prop_assert_eq!(scope(&when.hash_text()), when.clone());
        prop_assert_eq!(scope(&when.hash_text()).to_string(), when.to_string());
        if !text.contains(" cron ") {
            prop_assert_eq!(when.to_string(), text);
        }
    }

    #[test]
    fn reads_the_durations_and_instants_it_prints(
        duration in durations(),
        timestamp in timestamps(),
    ) {
        let text = display_duration(duration).to_string();
        prop_assert_eq!(parse_duration(&text), Ok(duration));
        let text = display_timestamp(timestamp).to_string();
        prop_assert_eq!(text.parse::<Instant>().unwrap().to_string(), text);
    }

    #[test]
    fn refuses_other_text_without_failing(text in any::<String>(), near in near_scopes()) {
        for text in [text, near] {
            let found = [
                text.parse::<When>().map_err(|error| error.at()).err(),
                text.parse::<Instant>().map_err(|error| error.at()).err(),
                parse_duration(&text).map_err(|error| error.at()).err(),
            ];
            for at in found.into_iter().flatten() {
                prop_assert!(text.is_char_boundary(at));
            }
        }
    }

    #[test]
    fn answers_at_any_time(one in scopes(), other in scopes(), now in timestamps()) {
        ask_everything(&scope(&one), &scope(&other), now);
    }

    #[test]
    fn built_scopes_can_be_written(
        start in timestamps(),
        end in timestamps(),
        seconds in any::<u64>(),
        nanos in 0..1_000_000_000_u32,
    ) {
        let duration = Duration::new(seconds, nanos);
        for when in [
            When::at(start),
            When::between(start, end),
            When::now_for(duration),
            When::at(start).with_period(Some(duration)),
            When::now_for(duration).resolve(end),
        ] {
            prop_assert_eq!(scope(&when.to_string()), when);
        }
    }

    #[test]
    fn lies_within_only_what_it_follows(
        one in scopes(),
        other in scopes(),
        now in timestamps(),
    ) {
        let (one, other) = (scope(&one), scope(&other));
        prop_assert!(!one.lies_within(&other, now) || one.follows(&other, now));
        let all_time = When::past_to_future();
        prop_assert_eq!(one.lies_within(&all_time, now), !one.is_empty(now));
    }

    #[test]
    fn resolving_fixes_the_bounds(text in scopes(), now in timestamps(), later in timestamps()) {
        let when = scope(&text);
        let resolved = when.resolve(now);
        prop_assert_eq!(resolved.bounds(later), when.bounds(now));
        prop_assert_eq!(resolved.resolve(later), resolved);
    }

    #[test]
    fn occurs_in_order_and_in_scope(text in scopes(), now in timestamps()) {
        let when = scope(&text);
        prop_assert_eq!(when.occurrences(now).is_some(), when.is_repeated());
        let occurrences = when.occurrences(now).into_iter().flatten().take(20);
        let mut last = None;
        for start in occurrences.map(|occurrence| occurrence.bounds(now).start) {
            prop_assert!(start > last);
            prop_assert!(when.contains(start.unwrap(), now));
            last = start;
        }
    }

    #[test]
    fn a_crontab_agrees_with_a_look_at_every_second(
        seconds in fields(0..=59),
        minutes in fields(0..=59),
        hours in fields(12..=15),
        offset in 0..3_600_i64,
    ) {
        let start = noon() + SignedDuration::from_secs(offset);
        let end = start + SignedDuration::from_hours(2);
        let when = scope(&format!(
            "repeat {} ... {} cron {} {} {} * * *",
            display_timestamp(start), display_timestamp(end), seconds.0, minutes.0, hours.0
        ));
        let expected: Vec<_> = (0..=7_200)
            .map(|second| start + SignedDuration::from_secs(second))
            .filter(|instant| {
                let civil = Offset::UTC.to_datetime(*instant);
                seconds.1.contains(&civil.second())
                    && minutes.1.contains(&civil.minute())
                    && hours.1.contains(&civil.hour())
            })
            .map(When::at)
            .collect();
        let found: Vec<_> = when.occurrences(start).unwrap().collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_crontab_agrees_with_a_look_at_every_day(
        days in fields(1..=31),
        weekdays in fields(0..=7),
        months in fields(1..=12),
        offset in 0..1_000_i64,
    ) {
        let start = noon() + SignedDuration::from_hours(24 * offset);
        let end = start + SignedDuration::from_hours(24 * 800);
        let when = scope(&format!(
            "repeat {} ... {} cron 0 0 12 {} {} {}",
            display_timestamp(start), display_timestamp(end), days.0, weekdays.0, months.0
        ));
        let expected: Vec<_> = (0..=800)
            .map(|day| start + SignedDuration::from_hours(24 * day))
            .filter(|instant| {
                let civil = Offset::UTC.to_datetime(*instant);
                let weekday = civil.weekday();
                let sunday = weekday == Weekday::Sunday && weekdays.1.contains(&7);
                days.1.contains(&civil.day())
                    && months.1.contains(&civil.month())
                    && (sunday || weekdays.1.contains(&weekday.to_sunday_zero_offset()))
            })
            .map(When::at)
            .collect();
        let found: Vec<_> = when.occurrences(start).unwrap().collect();
        prop_assert_eq!(found, expected);
    }
}
