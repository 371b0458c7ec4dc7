//! Flags in tStat's `runtime.conf` that are on while somebody needs them.
//!
//! A flag is switched on with the first who needs it, and off with the last, unless it was
//! on before. The file is read anew for each edit, so that changes of others stay, and
//! replaced in one step by another with the same mode and, where that is permitted, the
//! same owner.
//!
//! One process at a time switches flags in a file: it holds a lock on a file beside it,
//! `runtime.conf.mplane`, in which stand the flags that it has switched on. Should it not
//! live to switch them off, the next one finds them there and does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tracing::{debug, error, info};

use super::{Flag, SwitchError, is_on, switch_in};

/// Bytes of a `runtime.conf`: two hundred times that of tStat.
const BYTES: u64 = 1 << 20;

/// The files in which flags are switched, by their canonical path. Services that are made
/// anew when a configuration is read again share them with those that still run.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// The flags of one file.
#[derive(Clone, Debug)]
pub struct Switches(Arc<Shared>);

/// What all who switch flags in a file share.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
}

/// Who needs what.
#[derive(Debug)]
struct State {
    /// How many need a flag.
    needed: BTreeMap<Flag, usize>,
    /// The flags that were switched on here.
    ours: BTreeSet<Flag>,
    /// The locked file in which they stand.
    journal: File,
}

/// Flags that stay on until this is dropped.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    flags: &'static [Flag],
}

impl Switches {
    /// Takes charge of a file. Flags that a process has left on which did not live to
    /// switch them off are switched off.
    pub fn open(path: &Path) -> Result<Self, OpenSwitchesError> {
        let path = fs::canonicalize(path)
            .map_err(|source| SwitchFileError::Read { path: path.to_owned(), source })?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = open.get(&path).and_then(Weak::upgrade) {
            return Ok(Self(shared));
        }
        let beside = beside(&path, "mplane");
        let failed = |source| OpenSwitchesError::Lock { path: beside.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let journal = options.open(&beside).map_err(failed)?;
        match journal.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenSwitchesError::InUse { path });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut text = String::new();
        (&journal).take(BYTES).read_to_string(&mut text).map_err(failed)?;
        let ours: BTreeSet<_> = text.lines().filter_map(Flag::of_name).collect();
        let state = State { needed: BTreeMap::new(), ours, journal };
        let shared = Arc::new(Shared { path: path.clone(), state: Mutex::new(state) });
        shared.recover()?;
        open.insert(path, Arc::downgrade(&shared));
        Ok(Self(shared))
    }

    /// Checks that flags can be switched.
    pub fn check(&self, flags: &[Flag]) -> Result<(), SwitchFileError> {
        let text = self.0.read()?;
        for flag in flags {
            is_on(&text, *flag).map_err(|source| self.0.refused(source))?;
        }
        Ok(())
    }

    /// Switches flags on, as far as they are off, until what is returned is dropped.
    pub fn hold(&self, flags: &'static [Flag]) -> Result<Held, SwitchFileError> {
        self.0.take(flags)?;
        Ok(Held { shared: Arc::clone(&self.0), flags })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.shared.release(self.flags) {
            let problem = mplane_runtime::report(&error);
            error!(
                problem,
                "flags of tStat stay on; they are switched off at the next start"
            );
        }
    }
}

impl Shared {
    /// Switches off what was left on.
    fn recover(&self) -> Result<(), SwitchFileError> {
        let mut state = self.state();
        if state.ours.is_empty() {
            return Ok(());
        }
        let left = std::mem::take(&mut state.ours);
        info!(flags = ?left, "switches flags of tStat off that were left on");
        // One that is not there any more is not on.
        let text = self.read()?;
        let left = left.into_iter().filter(|flag| is_on(&text, *flag).is_ok());
        self.edit(&left.collect::<Vec<_>>(), false)?;
        self.write_down(&mut state)
    }

    /// Notes that flags are needed once more, and switches on those that are off.
    fn take(&self, flags: &[Flag]) -> Result<(), SwitchFileError> {
        let mut state = self.state();
        let text = self.read()?;
        let mut off = Vec::new();
        for flag in flags {
            if !is_on(&text, *flag).map_err(|source| self.refused(source))? {
                off.push(*flag);
            }
        }
        if !off.is_empty() {
            // They are written down first: what stands there may be on.
            state.ours.extend(&off);
            self.write_down(&mut state)?;
            if let Err(error) = self.edit(&off, true) {
                state.ours.retain(|flag| !off.contains(flag));
                self.write_down(&mut state)?;
                return Err(error);
            }
        }
        for flag in flags {
            *state.needed.entry(*flag).or_default() += 1;
        }
        Ok(())
    }

    /// Notes that flags are needed once less, and switches off those that nobody needs any
    /// more and that were switched on here.
    fn release(&self, flags: &[Flag]) -> Result<(), SwitchFileError> {
        let mut state = self.state();
        for flag in flags {
            if let Some(needed) = state.needed.get_mut(flag) {
                *needed -= 1;
            }
        }
        state.needed.retain(|_, needed| *needed > 0);
        let State { needed, ours, .. } = &*state;
        let free: Vec<_> =
            ours.iter().filter(|it| !needed.contains_key(it)).copied().collect();
        if free.is_empty() {
            return Ok(());
        }
        self.edit(&free, false)?;
        state.ours.retain(|flag| !free.contains(flag));
        self.write_down(&mut state)
    }

    /// Switches flags in the file.
    fn edit(&self, flags: &[Flag], on: bool) -> Result<(), SwitchFileError> {
        let mut text = self.read()?;
        let mut is_changed = false;
        for flag in flags {
            let edited = switch_in(&text, *flag, on);
            if let Some(edited) = edited.map_err(|source| self.refused(source))? {
                (text, is_changed) = (edited, true);
            }
        }
        if is_changed {
            let path = self.path.clone();
            replace(&self.path, &text)
                .map_err(|source| SwitchFileError::Write { path, source })?;
            debug!(?flags, on, "has switched flags of tStat");
        }
        Ok(())
    }

    /// Reads the file.
    fn read(&self) -> Result<Vec<u8>, SwitchFileError> {
        let failed = |source| SwitchFileError::Read { path: self.path.clone(), source };
        let mut text = Vec::new();
        let file = File::open(&self.path).map_err(failed)?;
        file.take(BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > BYTES {
            return Err(SwitchFileError::TooLarge { path: self.path.clone() });
        }
        Ok(text)
    }

    /// Writes down which flags were switched on here.
    fn write_down(&self, state: &mut State) -> Result<(), SwitchFileError> {
        let State { ours, journal, .. } = state;
        let text: String = ours.iter().flat_map(|flag| [flag.name(), "\n"]).collect();
        let mut write = || {
            journal.rewind()?;
            journal.set_len(0)?;
            journal.write_all(text.as_bytes())?;
            journal.sync_data()
        };
        write().map_err(|source| SwitchFileError::Write {
            path: beside(&self.path, "mplane"),
            source,
        })
    }

    /// Says in which file a flag cannot be switched.
    fn refused(&self, source: SwitchError) -> SwitchFileError {
        SwitchFileError::Flag { path: self.path.clone(), source }
    }

    /// Locks the state. A panic elsewhere leaves it whole: counts change last.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the path of a file beside another one.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Replaces a file in one step. The new one has the mode of the old one, and its owner if
/// this process may give files away. If not, it is replaced only where who could read the
/// old one can read the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path, "mplane-new");
    let old = fs::metadata(path)?;
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else reads it before it has its owner.
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
    let mut write = || {
        file.write_all(text)?;
        if fchown(&file, Some(old.uid()), Some(old.gid())).is_err() {
            let is_group_kept = fchown(&file, None, Some(old.gid())).is_ok();
            if !is_readable(old.mode(), is_group_kept) {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "tStat could not read it any more: let everybody read it, or run the \
                     component as its owner",
                ));
            }
        }
        file.set_permissions(old.permissions())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Says whether its former owner can read a file of this mode that has another owner now.
const fn is_readable(mode: u32, is_group_kept: bool) -> bool {
    mode & 0o004 != 0 || is_group_kept && mode & 0o040 != 0
}

/// A file whose flags cannot be switched.
#[derive(Debug, thiserror::Error)]
pub enum SwitchFileError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The file is no `runtime.conf`.
    #[error("{path} has more than {BYTES} bytes; it is no runtime.conf of tStat")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A flag cannot be switched.
    #[error("cannot switch the flags in {path}")]
    Flag {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        source: SwitchError,
    },
    /// The file cannot be written.
    #[error("cannot write {path}; the component needs the right to write in its folder")]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// A file of which nobody can take charge.
#[derive(Debug, thiserror::Error)]
pub enum OpenSwitchesError {
    /// Another process has.
    #[error("another program switches the flags in {path}; give each its own tStat")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The lock cannot be had.
    #[error("cannot lock {path}; the component needs the right to write in its folder")]
    Lock {
        /// The file beside it.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// What is in it cannot be used.
    #[error(transparent)]
    File(#[from] SwitchFileError),
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
