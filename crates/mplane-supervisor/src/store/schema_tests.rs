//! What is true of this store because of how it is written.

use mplane::message::Exception;

use super::tests::{Bench, NOON, after, token};
use super::*;

/// Returns how much is open, as it is counted while it changes and when it is counted now.
fn tallies(folder: &Path) -> [Vec<(String, String, i64)>; 2] {
    let connection = open_reader(&folder.join("control.db")).unwrap();
    let counted_now = "SELECT 'client', client, count(*) FROM specification
         WHERE settled_us IS NULL GROUP BY client
         UNION ALL SELECT 'component', component, count(*) FROM specification
         WHERE state = 'queued' OR interrupt = 'queued' OR progress = 'queued'
         GROUP BY component ORDER BY 1, 2";
    let counted = "SELECT * FROM tally WHERE specifications <> 0 ORDER BY 1, 2";
    [counted, counted_now].map(|query| {
        let mut statement = connection.prepare(query).unwrap();
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    })
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
    bench.store.interrupted(first, NOON).await.unwrap();
    bench.store.interrupted(third, NOON).await.unwrap();
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

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let old = Connection::open(folder.path().join("control.db")).unwrap();
    old.execute_batch(CONTROL[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let add = "INSERT INTO specification (id, client, token, component, handed_token,
         capability_token, accepted_us, state, epoch, interrupt, settled_us)
         VALUES (?1, 'c', ?1, 'p', ?1, 't', 0, ?2, 0, 'unasked', ?3)";
    for (id, state, settled) in [
        (1, "queued", None),
        (2, "handed", None),
        (3, "result", Some(1)),
        (4, "queued", None),
    ] {
        old.execute(add, params![id, state, settled]).unwrap();
    }
    drop(old);
    assert!(
        matches!(Archive::open(folder.path()), Err(OpenStoreError::Version { .. }))
            || matches!(
                Archive::open(folder.path()),
                Err(OpenStoreError::NoStore { .. })
            )
    );
    let store = Store::open(folder.path()).unwrap();
    let [counted, counted_now] = tallies(folder.path());
    assert_eq!(counted, counted_now);
    let all = [("client".into(), "c".into(), 3), ("component".into(), "p".into(), 2)];
    assert_eq!(counted, all);
    assert_eq!(store.next_id(), Id(5));
}
