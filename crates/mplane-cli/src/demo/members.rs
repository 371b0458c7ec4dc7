//! The members of a demo's domain: their certificates and configurations.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::pki::{Authority, Issued, Role};

/// The organization in the certificates.
const ORGANIZATION: &str = "mplane-demo";

/// The supervisor's section: the system chooses the port.
pub(super) const SUPERVISOR_SECTION: &str = "[supervisor]\ndata = \"supervisor\"\n\n[supervisor.listener]\naddress = \"127.0.0.1:0\"\n";

/// The certificates of the demo's domain.
pub(super) struct Members {
    authority: PathBuf,
    pub(super) supervisor: Issued,
    pub(super) component: Issued,
    pub(super) client: Issued,
}

impl Members {
    /// Creates the authority and a certificate for each member.
    pub(super) fn create(folder: &Path) -> Result<Self, Failure> {
        let authority = Authority::create(folder, ORGANIZATION)?;
        let hosts = ["127.0.0.1", "::1", "localhost"].map(ToOwned::to_owned);
        Ok(Self {
            supervisor: authority.issue(Role::Supervisor, "supervisor-1", &hosts)?,
            component: authority.issue(Role::Component, "probe-1", &hosts)?,
            client: authority.issue(Role::Client, "client-1", &hosts)?,
            authority: authority.cert(),
        })
    }

    /// Writes the configuration of a member.
    pub(super) fn write(
        &self,
        path: &Path,
        member: &Issued,
        section: &str,
    ) -> Result<(), Failure> {
        let name = |file: &Path| {
            let name = file.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let text = format!(
            "[tls]\nca-chain = {:?}\ncert = {:?}\nkey = {:?}\n\n{section}",
            name(&self.authority),
            name(&member.cert),
            name(&member.key),
        );
        fs::write(path, text).map_err(|source| {
            let path = path.to_owned();
            WriteConfigError { path, source }.into()
        })
    }
}

/// A configuration that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
struct WriteConfigError {
    path: PathBuf,
    source: io::Error,
}
