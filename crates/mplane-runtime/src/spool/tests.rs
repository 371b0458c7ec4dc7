//! The spool: its size, its dead letters, and files of older versions.

use mplane::message::{Capability, Exception, ResultStatement, Statement};
use mplane::primitive::Value as Cell;
use mplane::when::When;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("mplane-spool-").tempdir().unwrap()
}

fn owner() -> Identity {
    let names = ["Test", "Clients", "me"].map(Into::into);
    Identity::new(names, Some("Clients"))
}

/// A specification that can be carried out, and a result of it with so many rows.
fn specification() -> Specification {
    let registries = Registries::embedded();
    let statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .labelled("counted")
        .column(&registries, "packets.lost")
        .unwrap();
    let mut specification = Specification::of(&Capability::new(statement));
    specification.set_token(Some("token".parse().unwrap()));
    specification
}

fn result(rows: u64) -> Message {
    let specification = specification();
    let mut table = Table::new(specification.columns());
    for number in 0..rows {
        table.push([Some(Cell::Natural(number))]);
    }
    ResultStatement::of(&specification, When::at(Timestamp::UNIX_EPOCH), table).into()
}

fn accepted(number: u64) -> Record {
    Record::Accepted {
        job: JobId::from_number(number),
        parent: None,
        owner: owner(),
        specification: Box::new(specification()),
        capability: Some(CapabilityName::new(Some("counted"), "c".parse().unwrap())),
        accepted: Timestamp::UNIX_EPOCH,
    }
}

fn finished(number: u64, message: Message) -> Record {
    let (job, message) = (JobId::from_number(number), Box::new(message));
    Record::Finished { job, message, finished: Timestamp::UNIX_EPOCH }
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let (folder, registries) = (folder(), Registries::embedded());
    let path = folder.path().join("spool");
    let (spool, saved) = Spool::open(&path, LEAST_BYTES, &registries).unwrap();
    assert!(saved.is_empty());
    let records = vec![accepted(1), finished(1, result(3)), accepted(2)];
    spool.write(records, Arc::default()).durable().await.unwrap();
    drop(spool);
    let (_spool, saved) = Spool::open(&path, LEAST_BYTES, &registries).unwrap();
    let [first, second] = saved.as_slice() else { panic!("{saved:?}") };
    assert_eq!(first.finished, Some(result(3)));
    assert_eq!(first.finished_at, Some(Timestamp::UNIX_EPOCH));
    assert_eq!(first.capability.as_ref().unwrap().label(), Some("counted"));
    assert_eq!(second.finished, None);
    assert_eq!(second.owner, owner());
}

#[tokio::test]
async fn a_spool_of_the_first_version_is_brought_up_to_date() {
    let (folder, registries) = (folder(), Registries::embedded());
    let path = folder.path().join("spool");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(MIGRATIONS[0]).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection
        .execute(
            "INSERT INTO job (id, owner, specification, accepted_us, message, is_posted)
             VALUES (7, ?1, ?2, 0, ?3, 1)",
            params![
                identity_text(&owner()),
                message_text(&specification().into()),
                message_text(&result(2))
            ],
        )
        .unwrap();
    drop(connection);
    let error = inspect(&path, &registries).unwrap_err().to_string();
    assert!(error.contains("has schema 1, this program reads 2"), "{error}");
    let (_spool, saved) = Spool::open(&path, LEAST_BYTES, &registries).unwrap();
    let [old] = saved.as_slice() else { panic!("{saved:?}") };
    assert_eq!(old.job, JobId::from_number(7));
    assert_eq!(old.finished, Some(result(2)));
    assert_eq!((old.finished_at, old.capability.is_some()), (None, false));
    assert_eq!(inspect(&path, &registries).unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn a_spool_tells_how_full_it_is_and_does_not_grow_without_end() {
    let (folder, registries) = (folder(), Registries::embedded());
    let path = folder.path().join("spool");
    let most = 400_000;
    let (spool, _) = Spool::open(&path, most, &registries).unwrap();
    assert_eq!(spool.fill(), Fill::Low);
    let mut fills = vec![Fill::Low];
    let mut number = 0;
    let error = loop {
        number += 1;
        let records = vec![accepted(number), finished(number, result(1_000))];
        if let Err(error) = spool.write(records, Arc::default()).durable().await {
            break error;
        }
        fills.push(spool.fill());
    };
    assert!(error.to_string().contains("full"), "{error}");
    fills.dedup();
    assert_eq!(fills, [Fill::Low, Fill::Middle, Fill::High, Fill::Over]);
    assert!(spool.used_bytes() <= most + most / SPARE_PART);
    // What is deleted makes room.
    let reason = "a test";
    let forgotten = (1..number)
        .map(|number| Record::Forgotten { job: JobId::from_number(number), reason })
        .collect();
    spool.write(forgotten, Arc::default()).durable().await.unwrap();
    assert_eq!(spool.fill(), Fill::Low);
}

#[tokio::test]
async fn dead_letters_take_a_part_of_the_spool_and_lose_their_rows_before_their_word() {
    let (folder, registries) = (folder(), Registries::embedded());
    let path = folder.path().join("spool");
    let most = 2_000_000;
    let (spool, _) = Spool::open(&path, most, &registries).unwrap();
    spool.bury(owner(), result(50_000), "too large".into()).await.unwrap();
    for number in 0..100 {
        spool.bury(owner(), result(1_000), format!("number {number}")).await.unwrap();
    }
    let exception = Exception::new(None, "the last").into();
    spool.bury(owner(), exception, "number 100".into()).await.unwrap();
    let letters = inspect(&path, &registries).unwrap().dead_letters;
    let bytes: usize = letters.iter().map(|letter| letter.message.len()).sum();
    assert!(bytes <= usize::try_from(most / DEAD_PART).unwrap(), "{bytes}");
    assert!(letters.len() > 10, "{}", letters.len());
    assert_eq!(letters[0].reason, "number 100", "the latest first");
    drop(letters);

    spool.bury(owner(), result(50_000), "too large".into()).await.unwrap();
    let letters = inspect(&path, &registries).unwrap().dead_letters;
    assert!(letters[0].message.contains("\"resultvalues\":[]"), "{:?}", letters[0]);
    assert!(letters[0].message.contains("counted"), "{:?}", letters[0]);
}
