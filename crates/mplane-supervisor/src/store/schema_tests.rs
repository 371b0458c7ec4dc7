//! What is true of this store because of how it is written.

use mplane::message::Exception;

use super::tests::{Bench, NOON, after, client, token};
use super::*;
use crate::directory::About;

/// Returns how much is open, as it is counted while it changes and when it is counted now.
fn tallies(folder: &Path) -> [Vec<(String, String, i64)>; 2] {
    let connection = open_reader(&folder.join("control.db")).unwrap();
    let counted_now = "SELECT 'client', client, count(*) FROM specification
         WHERE settled_us IS NULL GROUP BY client
         UNION ALL SELECT 'component', component, count(*) FROM specification
         WHERE state = 'queued' OR interrupt = 'queued' OR progress = 'queued'
         GROUP BY component ORDER BY 1, 2";
    let counted = "SELECT * FROM tally WHERE specifications <> 0 ORDER BY 1, 2";
    [counted, counted_now].map(|query| rows(&connection, query))
}

/// Returns what a query finds.
fn rows(connection: &Connection, query: &str) -> Vec<(String, String, i64)> {
    let mut statement = connection.prepare(query).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Keeps nothing that has ended.
const FORGET: Retention = Retention {
    results: Duration::ZERO,
    stories: Duration::ZERO,
    client_bytes: 0,
    component_bytes: 0,
};

#[tokio::test]
async fn what_is_open_is_counted_as_it_changes() {
    let bench = Bench::new();
    let check = |when: &str, open: usize| {
        let [counted, counted_now] = tallies(bench.folder.path());
        assert_eq!(counted, counted_now, "{when}");
        assert_eq!(counted.len(), open, "{when}: {counted:?}");
    };
    check("at the start", 0);
    let (first, _) = bench.accept("me", "1", "a").await;
    let (second, _) = bench.accept("me", "2", "a").await;
    let (third, _) = bench.accept("you", "3", "b").await;
    check("accepted", 4);
    assert_eq!(bench.fetch("a", NOON).await, [first, second]);
    check("fetched", 3);
    // What is nothing is not kept, and comes back.
    bench.store.sweep(FORGET, NOON).await.unwrap();
    let word: Message = Exception::new(Some(token("1")), "interrupted").into();
    bench.store.interrupted(vec![first], NOON).await.unwrap();
    bench.store.interrupted(vec![third], NOON).await.unwrap();
    check("interrupted", 2);
    bench.store.expire(after(31)).await.unwrap();
    check("offered again", 2);
    bench.deliver(second, "a", word.clone()).await;
    check("delivered", 2);
    bench.store.expire(after(200)).await.unwrap();
    check("lost", 0);
    bench.store.sweep(FORGET, after(300)).await.unwrap();
    check("forgotten", 0);
}

/// A store that the first version has written, as SQL: a supervisor, killed with `SIGKILL`,
/// two components and a client, which had asked one component, both, for a repeat that goes
/// on, and the first component once more after that had ended.
const FIRST: [&str; 2] = [
    include_str!("../../vectors/store-1/control.sql"),
    include_str!("../../vectors/store-1/results.sql"),
];

/// Who had asked, and the tokens of what.
const CLIENT: &str = "client-1";
const ONE: &str = "8ca8e0ac7c5eab334e2a31d4eadb0124";
const BOTH: &str = "9b28941730bbad08f16883e4d8f6e0c4";
const REPEAT: &str = "7fdcf005076a884fb8ddc0b9d9572c2c";
const WAITING: &str = "d556fe2fb2387752689cb8f0a8c1af23";

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let (control, results) = files(folder.path());
    for (path, sql) in [&control, &results].into_iter().zip(FIRST) {
        let connection = Connection::open(path).unwrap();
        // Its tables are in the order of their names.
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection.execute_batch(sql).unwrap();
    }
    let error = Archive::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenStoreError::Version { version: 1, .. }), "{error}");
    let store = Store::open(folder.path()).unwrap();
    let [counted, counted_now] = tallies(folder.path());
    assert_eq!(counted, counted_now);
    let open: i64 = counted.iter().map(|(_, _, count)| count).sum();
    assert_eq!(open, 3, "two of the client have not ended, one waits: {counted:?}");
    let [kept, kept_now] = kept(folder.path());
    assert_eq!(kept, kept_now);
    assert_eq!(store.next_id(), Id(7));

    let me = ["mplane", "Clients", CLIENT].map(Into::into);
    let me = Identity::new(me, Some("Clients"));
    for (name, ended) in [(ONE, true), (BOTH, true), (REPEAT, false), (WAITING, false)] {
        let told = store.told(&me, &token(name)).await.unwrap().expect("it is known");
        match told {
            Told::Ended(_, Some(result)) => {
                assert!(ended && result.contains("connected"), "{name}");
            }
            Told::Pending(known, _) => assert!(!ended && known.asked.is_some()),
            other @ Told::Ended(..) => panic!("{other:?}"),
        }
    }
    let both = store.stories(BOTH.into(), None).await.unwrap().stories;
    let steps = both[0].steps.iter().map(|step| &*step.what);
    assert_eq!(
        steps.collect::<Vec<_>>(),
        ["accepted", "handed", "delivered", "redeemed"]
    );
    assert_eq!(both[0].parts.len(), 2);
    let components = store.components().await.unwrap();
    let first = &components[0];
    assert!(first.is_pending && first.about == About::default(), "{first:?}");
    assert_eq!(first.capabilities.len(), 1);
    // It goes on: what waited is fetched.
    let (handed, _) = store.fetch(&first.identity, None, NOON).await.unwrap();
    assert_eq!(handed.len(), 1);
    let swept = store.sweep(FORGET, Timestamp::MAX).await.unwrap();
    assert_eq!(swept, Swept { results: 4, stories: 4 });
    let [kept, kept_now] = self::kept(folder.path());
    assert_eq!(kept, kept_now);
}

/// Returns how much is kept of whom, as it is counted while it changes and when it is counted
/// now.
fn kept(folder: &Path) -> [Vec<(String, String, i64)>; 2] {
    let connection = open_reader(&folder.join("control.db")).unwrap();
    let counted_now = "SELECT 'client', client, sum(result_bytes) FROM specification
         WHERE result_bytes > 0 GROUP BY client
         UNION ALL SELECT 'component', component, sum(result_bytes) FROM specification
         WHERE result_bytes > 0 AND is_parent = 0 GROUP BY component ORDER BY 1, 2";
    let counted = "SELECT * FROM kept WHERE bytes <> 0 ORDER BY 1, 2";
    [counted, counted_now].map(|query| rows(&connection, query))
}

#[tokio::test]
async fn what_is_kept_of_whom_is_counted_as_it_changes() {
    let bench = Bench::new();
    let check = |when: &str, who: usize| {
        let [counted, counted_now] = kept(bench.folder.path());
        assert_eq!(counted, counted_now, "{when}");
        assert_eq!(counted.len(), who, "{when}: {counted:?}");
    };
    let (first, _) = bench.accept("me", "1", "a").await;
    let (second, _) = bench.accept("you", "2", "a").await;
    bench.fetch("a", NOON).await;
    check("fetched", 0);
    let word: Message = Exception::new(Some(token("1")), "no route").into();
    bench.deliver(first, "a", word.clone()).await;
    check("delivered", 2);
    bench.deliver(first, "a", word.clone()).await;
    bench.deliver(second, "a", word).await;
    check("both delivered", 3);
    let over = Retention { client_bytes: u64::MAX, ..FORGET };
    let long = Duration::from_secs(86_400);
    let over = Retention { results: long, stories: long, component_bytes: 1, ..over };
    assert_eq!(bench.store.sweep(over, after(1)).await.unwrap().results, 2);
    check("not kept any more", 0);
    bench.store.sweep(FORGET, after(300)).await.unwrap();
    check("forgotten", 0);
}

#[test]
fn a_damaged_store_is_not_opened() {
    let bench = Bench::new();
    let (control, _) = files(bench.folder.path());
    {
        let connection = Connection::open(&control).unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    }
    let Bench { store, folder } = bench;
    drop(store);
    let mut bytes = loop {
        // The thread that writes ends, and with it its log.
        let log = folder.path().join("control.db-wal");
        if std::fs::metadata(log).is_err() {
            break std::fs::read(&control).unwrap();
        }
        std::thread::yield_now();
    };
    // The second page and those behind it, not the header.
    bytes[4_096..].fill(0xa5);
    std::fs::write(&control, bytes).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    let text = mplane_runtime::report(&error);
    assert!(text.contains("control.db"), "{text}");
    assert!(text.contains("damaged") || text.contains("malformed"), "{text}");
}

#[tokio::test]
async fn a_database_that_another_program_locks_is_waited_for() {
    let bench = Bench::new();
    let (control, _) = files(bench.folder.path());
    let mut other = Connection::open(control).unwrap();
    let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let held = held.unwrap();
    let mut accept = Box::pin(bench.accept("me", "t", "a"));
    tokio::select! {
        biased;
        _ = &mut accept => panic!("accepted while the database is locked"),
        () = std::future::ready(()) => {}
    }
    // Reading goes on meanwhile.
    assert!(bench.store.told(&client("me"), &token("t")).await.unwrap().is_none());
    held.rollback().unwrap();
    assert_eq!(accept.await.1, Acceptance::New);
    assert!(bench.store.told(&client("me"), &token("t")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_log_that_ends_early_or_in_rubbish_costs_the_latest_steps_alone() {
    const ACCEPTED: usize = 30;
    let bench = Bench::new();
    for number in 0..ACCEPTED {
        bench.accept("me", &format!("t{number}"), "a").await;
    }
    let (control, results) = files(bench.folder.path());
    let log = |database: &Path| PathBuf::from(format!("{}-wal", database.display()));
    let whole = std::fs::read(log(&control)).unwrap();
    let mut last = 0;
    // Parts of the log as a machine that loses its power may leave it.
    for eighths in 0..=8 {
        let kept = whole.len() * eighths / 8;
        for rubbish in [&b""[..], &[0xa5; 5_000]] {
            let folder = tempfile::tempdir().unwrap();
            let (control_copy, results_copy) = files(folder.path());
            for (from, to) in [(&control, &control_copy), (&results, &results_copy)] {
                std::fs::copy(from, to).unwrap();
            }
            std::fs::copy(log(&results), log(&results_copy)).unwrap();
            std::fs::write(log(&control_copy), [&whole[..kept], rubbish].concat())
                .unwrap();
            let store = Store::open(folder.path()).unwrap();
            let mut found = Vec::new();
            for number in 0..ACCEPTED {
                let name = format!("t{number}");
                let known = store.told(&client("me"), &token(&name)).await.unwrap();
                let stories = store.stories(name, None).await.unwrap().stories;
                let steps: usize = stories.iter().map(|story| story.steps.len()).sum();
                assert_eq!(known.is_some(), steps == 1, "a specification has its story");
                found.push(known.is_some());
            }
            let count = found.iter().take_while(|found| **found).count();
            assert!(!found[count..].contains(&true), "{found:?}");
            assert!(count >= last, "the more is kept of the log, the more is known");
            last = count;
            let bench = Bench { store, folder };
            assert_eq!(bench.accept("me", "next", "a").await.1, Acceptance::New);
        }
    }
    assert_eq!(last, ACCEPTED);
}
