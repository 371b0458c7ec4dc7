//! Where a demo keeps its files: a private folder of its own, locked while it runs and
//! removed at its end.

use std::env;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use mplane_runtime::tls::fresh_token;
use tracing::debug;

/// What the folders of demos start with.
const PREFIX: &str = "demo-";

/// The file that is locked while a demo runs.
const LOCK: &str = "lock";

/// The private folder of a running demo.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    keep: bool,
    /// Held until the end, so that no other demo takes the folder for a stale one. A kept
    /// folder has no lock, so that none ever does.
    _lock: Option<File>,
}

impl State {
    /// Makes a folder: in `chosen` if that is given, else in the first of the usual places
    /// that can be written to. Folders that demos left behind when they were killed are
    /// removed from there.
    pub(super) fn create(
        chosen: Option<&Path>,
        keep: bool,
    ) -> Result<Self, CreateStateError> {
        if let Some(chosen) = chosen {
            return Self::create_in(chosen, keep).map_err(|source| {
                CreateStateError::Chosen { path: chosen.to_owned(), source }
            });
        }
        let mut last = None;
        for place in places() {
            match Self::create_in(&place, keep) {
                Ok(state) => return Ok(state),
                Err(source) => {
                    debug!(place = %place.display(), %source, "cannot keep state here");
                    last = Some(CreateStateError::Nowhere { path: place, source });
                }
            }
        }
        Err(last.expect("the temporary folder is always among the places"))
    }

    /// Makes a folder in a place.
    fn create_in(place: &Path, keep: bool) -> io::Result<Self> {
        let private = |recursive: bool| {
            let mut builder = DirBuilder::new();
            builder.mode(0o700).recursive(recursive);
            builder
        };
        private(true).create(place)?;
        let place = place.canonicalize()?;
        refuse_shared(&place)?;
        remove_stale(&place);
        let name = fresh_token();
        let folder = place.join(format!("{PREFIX}{}", name.short()));
        if keep {
            private(false).create(&folder)?;
            return Ok(Self { folder, keep, _lock: None });
        }
        // It gets its name when it is locked: no other demo sees it without.
        let unnamed = place.join(format!("new-{name}"));
        private(false).create(&unnamed)?;
        let lock = File::create_new(unnamed.join(LOCK))?;
        lock.lock()?;
        fs::rename(&unnamed, &folder)?;
        Ok(Self { folder, keep, _lock: Some(lock) })
    }

    /// Returns the folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            debug!(folder = %self.folder.display(), %error, "cannot remove the state");
        }
    }
}

/// Returns where programs keep state (XDG Base Directory Specification), and at the end
/// where everyone may write.
fn places() -> Vec<PathBuf> {
    let variable =
        |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let xdg = variable("XDG_STATE_HOME").map(|folder| folder.join("mplane"));
    let home = variable("HOME").map(|folder| folder.join(".local/state/mplane"));
    let user = user_number();
    let temporary = env::temp_dir();
    let own = temporary.join(format!("mplane-{user}"));
    // Where someone else has taken the name, the folder of the demo stands alone.
    xdg.into_iter().chain(home).chain([own, temporary]).collect()
}

/// Returns the number of the user, so that users do not meet in the temporary folder.
fn user_number() -> u32 {
    fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

/// Refuses a place in which others could exchange our files.
fn refuse_shared(place: &Path) -> io::Result<()> {
    let metadata = fs::metadata(place)?;
    let is_sticky = metadata.mode() & 0o1000 != 0;
    let others_write = metadata.mode() & 0o022 != 0;
    if (others_write && !is_sticky) || ![user_number(), 0].contains(&metadata.uid()) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others can write to it, or own it",
        ));
    }
    Ok(())
}

/// Removes the folders of demos that do not run any more. Kept ones have no lock file.
fn remove_stale(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        // Nothing else that somebody may have called so.
        let number = name.as_deref().and_then(|name| name.strip_prefix(PREFIX));
        let is_demo = number.is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        let is_empty = |lock: &File| lock.metadata().is_ok_and(|lock| lock.len() == 0);
        if !is_demo {
            continue;
        }
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if !is_empty(&lock) {
            continue;
        }
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        debug!(folder = %folder.display(), "removes what a killed demo left");
        if let Err(error) = fs::remove_dir_all(&folder) {
            debug!(folder = %folder.display(), %error, "cannot remove it");
        }
    }
}

/// A folder that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CreateStateError {
    /// In the place that was asked for.
    #[error("cannot make a folder in {path}; choose another --state-dir")]
    Chosen {
        /// The place.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Anywhere.
    #[error(
        "cannot make a folder anywhere, lastly in {path}; choose one with --state-dir"
    )]
    Nowhere {
        /// The last place.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder that is removed at the end of the test.
    fn place() -> State {
        State::create(Some(&env::temp_dir().join("mplane-state-tests")), false).unwrap()
    }

    #[test]
    fn folders_are_private_unique_and_removed() {
        let outer = place();
        let one = State::create(Some(outer.folder()), false).unwrap();
        let two = State::create(Some(outer.folder()), false).unwrap();
        assert_ne!(one.folder(), two.folder());
        let mode = fs::metadata(one.folder()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = one.folder().to_owned();
        drop(one);
        assert!(!path.exists());
        assert!(two.folder().exists(), "what runs is not stale");
    }

    #[test]
    fn what_a_killed_demo_left_is_removed_and_what_is_kept_stays() {
        let outer = place();
        let stale = outer.folder().join("demo-0badc0de");
        fs::create_dir(&stale).unwrap();
        File::create_new(stale.join(LOCK)).unwrap();
        let foreign = outer.folder().join("demo-notes");
        fs::create_dir(&foreign).unwrap();
        File::create_new(foreign.join(LOCK)).unwrap();
        let running = State::create(Some(outer.folder()), false).unwrap();
        assert!(!stale.exists());
        assert!(foreign.exists());
        drop(running);
    }

    #[test]
    fn kept_folders_outlive_other_demos() {
        let outer = place();
        let kept = State::create(Some(outer.folder()), true).unwrap();
        let folder = kept.folder().to_owned();
        drop(kept);
        drop(State::create(Some(outer.folder()), false).unwrap());
        assert!(folder.exists());
    }

    #[test]
    fn says_where_it_could_not_write() {
        let error = State::create(Some(Path::new("/proc/none")), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot make a folder in /proc/none; choose another --state-dir"
        );
    }
}
