//! SQLite as everything durable here uses it: one file, one writer, commits in groups.
//!
//! A thread owns the connection. Writes that arrive while a commit is under way form the
//! next one together; a write that arrives when nothing is under way is committed at once.
//! A write is durable when [`Written::durable`] returns (WAL, `synchronous = FULL`).

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::oneshot;

/// Writes of one commit at most: a bound on how long the first waits for the last.
const GROUP: usize = 500;

/// Readers kept open: as many as read at once on a machine of a few cores.
const IDLE_READERS: usize = 8;

/// How long to wait for a lock that a reader such as a backup holds.
const BUSY: Duration = Duration::from_secs(5);

/// An open database, for writing.
#[derive(Debug)]
pub struct Database {
    writes: mpsc::Sender<Write>,
    waiting: Arc<AtomicUsize>,
    used_bytes: Arc<AtomicU64>,
    /// Held as long as the database is open: two programs on one file would each miss
    /// what the other has in memory.
    _lock: File,
}

/// What a write does, within a transaction.
type Act = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;

/// A write on its way to the thread.
struct Write {
    act: Act,
    done: oneshot::Sender<Result<(), WriteError>>,
}

impl Database {
    /// Opens a file, which is made if it is not there, and brings its schema up to date:
    /// each migration is applied once, in order. Returns the connection too, to read what
    /// is there before the first write; hand it back with [`start`](Opened::start).
    pub fn open(path: &Path, migrations: &[&str]) -> Result<Opened, OpenDatabaseError> {
        let failed = |source| OpenDatabaseError::Open { path: path.to_owned(), source };
        let lock = lock(path)?;
        let mut connection =
            Connection::open_with_flags(path, OpenFlags::default()).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        keep_plans(&connection).map_err(failed)?;
        let check: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(failed)?;
        if check != "ok" {
            return Err(OpenDatabaseError::Damaged { path: path.to_owned(), check });
        }
        migrate(&mut connection, path, migrations)?;
        Ok(Opened { connection, lock })
    }

    /// Returns how many bytes of the file are used, as of the last commit: what was
    /// deleted leaves room within it.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Returns how many writes wait, those of the commit under way included.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Writes. Writes are made in the order of calls, whether or not anyone waits for
    /// them.
    pub fn write(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Written {
        let (done, written) = oneshot::channel();
        let write = Write { act: Box::new(act), done };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // If the thread is gone, so is the sender that would have told.
        let _closed = self.writes.send(write).is_err();
        Written(written)
    }
}

impl Database {
    /// Writes, and returns what the write has found out once it is durable.
    pub async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (found, finds) = mpsc::sync_channel(1);
        let written = self.write(move |connection| {
            // There is room for one.
            let _sent = found.try_send(act(connection)?).is_ok();
            Ok(())
        });
        written.durable().await?;
        finds.try_recv().map_err(|_| WriteError::Closed)
    }
}

/// Connections that only read, side by side with the one that writes.
#[derive(Debug)]
pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Makes readers of a file that a [`Database`] has opened; each connection is opened
    /// when it is needed, and [`IDLE_READERS`] are kept.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::new(Vec::new()) }
    }

    /// Reads on a thread where that may take its time: what is not found by its key.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let readers = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || readers.look_up(act));
        read.await.unwrap_or_else(|_| Err(ReadError("the program ends".into())))
    }

    /// Reads here and now what is found by its key: that takes less than to change threads,
    /// and never waits for who writes.
    pub fn look_up<T>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.pop();
        drop(idle);
        let failed = |error: rusqlite::Error| ReadError(error.to_string());
        let connection = match kept {
            Some(connection) => connection,
            None => open_reader(&self.path).map_err(failed)?,
        };
        let found = act(&connection).map_err(failed)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_READERS {
            idle.push(connection);
        }
        Ok(found)
    }
}

/// Opens a file to read only, also while a program writes to it.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    keep_plans(&connection)?;
    Ok(connection)
}

/// Has SQLite keep the plan of a prepared statement whatever is bound to it. Otherwise
/// statements whose parameters it looks at, such as a `LIMIT`, are prepared anew each time
/// that they are taken from the cache, which takes longer than running them.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// A read that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the database: {0}")]
pub struct ReadError(String);

/// A write on its way.
#[derive(Debug)]
pub struct Written(oneshot::Receiver<Result<(), WriteError>>);

impl Written {
    /// Waits until the write is durable.
    pub async fn durable(self) -> Result<(), WriteError> {
        self.0.await.unwrap_or(Err(WriteError::Closed))
    }
}

/// A database that was opened and is not written to yet.
#[derive(Debug)]
pub struct Opened {
    /// The connection, to read.
    pub connection: Connection,
    lock: File,
}

impl Opened {
    /// Sets how large the file may become, in bytes: writes beyond it fail.
    pub fn limit(&self, bytes: u64) -> Result<(), rusqlite::Error> {
        let page =
            self.connection.pragma_query_value(None, "page_size", |row| row.get(0));
        let page: i64 = page?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        self.connection.pragma_update(None, "max_page_count", pages)
    }

    /// Starts the thread that writes.
    pub fn start(self) -> Result<Database, OpenDatabaseError> {
        let (writes, queue) = mpsc::channel();
        let connection = self.connection;
        let used_bytes = Arc::new(AtomicU64::new(used_bytes(&connection)));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (used, left) = (Arc::clone(&used_bytes), Arc::clone(&waiting));
        std::thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || write_all(connection, &queue, &used, &left))
            .map_err(OpenDatabaseError::Thread)?;
        Ok(Database { writes, waiting, used_bytes, _lock: self.lock })
    }
}

/// Locks a file beside the database.
fn lock(path: &Path) -> Result<File, OpenDatabaseError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let failed = |source| OpenDatabaseError::Lock { path: beside.clone(), source };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(OpenDatabaseError::InUse { path: path.to_owned() })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Applies the migrations that the file has not seen.
fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), OpenDatabaseError> {
    let failed = |source| OpenDatabaseError::Open { path: path.to_owned(), source };
    let version: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(outstanding) = migrations.get(version..) else {
        return Err(OpenDatabaseError::Newer {
            path: path.to_owned(),
            version,
            known: migrations.len(),
        });
    };
    for (index, migration) in outstanding.iter().enumerate() {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(migration).map_err(failed)?;
        transaction
            .pragma_update(
                None,
                "user_version",
                u32::try_from(version + index + 1).unwrap_or(u32::MAX),
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

/// Makes writes until nobody can ask for any more.
fn write_all(
    mut connection: Connection,
    queue: &mpsc::Receiver<Write>,
    used: &AtomicU64,
    waiting: &AtomicUsize,
) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(GROUP - 1));
        let count = group.len();
        write_group(&mut connection, group, used);
        waiting.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Returns how many bytes of the file are used; 0 if that cannot be told.
fn used_bytes(connection: &Connection) -> u64 {
    let ask =
        |what| connection.pragma_query_value(None, what, |row| row.get::<_, i64>(0));
    let used = || {
        let pages = ask("page_count")?.saturating_sub(ask("freelist_count")?);
        Ok::<_, rusqlite::Error>(pages.saturating_mul(ask("page_size")?))
    };
    used().unwrap_or_default().unsigned_abs()
}

/// Makes a group of writes in one transaction. One that cannot be made does not cost the
/// others, unless the disk takes none of them.
fn write_group(connection: &mut Connection, group: Vec<Write>, used: &AtomicU64) {
    let (acts, done): (Vec<_>, Vec<_>) =
        group.into_iter().map(|write| (write.act, write.done)).unzip();
    let mut outcomes = Vec::with_capacity(acts.len());
    let written = (|| {
        // A transaction that reads before it writes would not wait for who holds the lock.
        let mut transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for act in acts {
            // A write that fails leaves no trace; the others go on.
            let savepoint = transaction.savepoint()?;
            outcomes.push(act(&savepoint));
            if matches!(outcomes.last(), Some(Ok(()))) {
                savepoint.commit()?;
            }
        }
        transaction.commit()
    })();
    // Before anyone hears of it.
    used.store(used_bytes(connection), Ordering::Relaxed);
    let mut outcomes = outcomes.into_iter();
    for done in done {
        let outcome = match (&written, outcomes.next()) {
            (Ok(()), Some(Ok(()))) => Ok(()),
            (_, Some(Err(error))) => Err(WriteError::Sqlite(error.to_string())),
            (Err(error), _) => Err(WriteError::Sqlite(error.to_string())),
            (Ok(()), None) => Err(WriteError::Closed),
        };
        if done.send(outcome).is_err() {
            tracing::trace!("nobody waits for a write any more");
        }
    }
}

/// A write that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// SQLite refused, mostly because the disk is full.
    #[error("cannot write to the database: {0}")]
    Sqlite(String),
    /// The program ends.
    #[error("the database is closed")]
    Closed,
}

/// A database that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDatabaseError {
    /// SQLite refused.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rusqlite::Error,
    },
    /// The file is no sound database.
    #[error("the database {path} is damaged ({check}); restore it, or move it away")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing found.
        check: String,
    },
    /// A later version of the program has written it.
    #[error(
        "the database {path} has schema {version}, this program knows up to {known}; use a newer program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        version: usize,
        /// The latest known schema.
        known: usize,
    },
    /// Another program uses it.
    #[error("the database {path} is used by another program; give each its own")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The lock cannot be made.
    #[error("cannot lock {path}")]
    Lock {
        /// The lock.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// There is no thread to write.
    #[error("cannot start a thread for the database")]
    Thread(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    const SCHEMA: &str = "CREATE TABLE number (n INTEGER NOT NULL) STRICT;";

    /// A database file in a folder of its own, removed at the end of the test.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let unique = format!("mplane-sqlite-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(unique);
            std::fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("test.db")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ignored = std::fs::remove_dir_all(&self.0).is_err();
        }
    }

    fn count(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        connection.query_row("SELECT count(*) FROM number", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_statement_from_the_cache_is_not_prepared_anew() {
        let place = Place::new("plans");
        let opened = Database::open(&place.file(), &[SCHEMA]).unwrap();
        let reader = open_reader(&place.file()).unwrap();
        for connection in [&opened.connection, &reader] {
            for limit in 2..5 {
                let sql = "SELECT n FROM number WHERE n > ?1 LIMIT ?2";
                let mut statement = connection.prepare_cached(sql).unwrap();
                let rows = statement.query_map([0, limit], |row| row.get::<_, i64>(0));
                assert_eq!(rows.unwrap().count(), 0);
                assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_write_that_fails_does_not_cost_the_others() {
        let place = Place::new("group");
        let database = Database::open(&place.file(), &[SCHEMA]).unwrap().start().unwrap();
        let writes: Vec<_> = (0..100)
            .map(|n| {
                database.write(move |connection| {
                    let value = (n % 10 != 0).then_some(n);
                    connection
                        .execute("INSERT INTO number VALUES (?1)", [value])
                        .map(drop)
                })
            })
            .collect();
        let mut failed = 0;
        for write in writes {
            failed += u32::from(write.durable().await.is_err());
        }
        assert_eq!(failed, 10);
        drop(database);
        assert_eq!(count(&place.file()), 90);
    }

    #[test]
    fn migrations_are_applied_once_and_never_back() {
        let place = Place::new("migrate");
        let more = "INSERT INTO number VALUES (1);";
        drop(Database::open(&place.file(), &[SCHEMA]).unwrap());
        drop(Database::open(&place.file(), &[SCHEMA, more]).unwrap());
        drop(Database::open(&place.file(), &[SCHEMA, more]).unwrap());
        assert_eq!(count(&place.file()), 1);
        let error = Database::open(&place.file(), &[SCHEMA]).unwrap_err();
        assert!(
            error.to_string().ends_with(
                "has schema 2, this program knows up to 1; use a newer program"
            )
        );
    }

    #[test]
    fn one_program_at_a_time() {
        let place = Place::new("lock");
        let first = Database::open(&place.file(), &[SCHEMA]).unwrap();
        let error = Database::open(&place.file(), &[SCHEMA]).unwrap_err();
        assert!(matches!(error, OpenDatabaseError::InUse { .. }));
        drop(first);
        assert!(Database::open(&place.file(), &[SCHEMA]).is_ok());
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let place = Place::new("damaged");
        std::fs::write(place.file(), "not a database, but quite long ".repeat(100))
            .unwrap();
        assert!(Database::open(&place.file(), &[SCHEMA]).is_err());
    }
}
