//! A private public-key infrastructure: one authority, and certificates for the members
//! of a domain.
//!
//! Keys are ECDSA P-256. The subject of a certificate is the identity of its holder:
//! `O=<organization>, OU=Supervisors|Components|Clients, CN=<name>`. Certificates are
//! valid from an hour ago, so that members whose clocks are a little behind accept them.
//!
//! Source: RFC 5280.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::Failure;
use crate::output::Output;

/// How far in the past certificates start.
const BACKDATED: Duration = Duration::HOUR;

/// How long an authority is valid.
const AUTHORITY_LIFETIME: Duration = Duration::days(10 * 365);

/// How long a certificate is valid.
const LIFETIME: Duration = Duration::days(397);

/// What the authority's files are called.
const AUTHORITY: &str = "ca";

/// The longest organization or name (RFC 5280, upper bounds of X.520 names).
const NAME_CHARS: usize = 64;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Serves components and clients.
    Supervisor,
    /// Measures.
    Component,
    /// Asks for measurements.
    Client,
}

impl Role {
    /// Returns the organizational unit, which says what the holder is.
    const fn unit(self) -> &'static str {
        match self {
            Self::Supervisor => "Supervisors",
            Self::Component => "Components",
            Self::Client => "Clients",
        }
    }
}

/// The tasks of `mplane pki`.
#[derive(Clone, Debug, Subcommand)]
pub enum PkiCommand {
    /// Create an authority: ca.crt for everyone, ca.key for nobody else
    Init {
        /// The folder for the authority's files; it is created
        folder: PathBuf,
        /// The organization in every certificate: the name of the domain
        #[arg(long, default_value = "mplane")]
        organization: String,
    },
    /// Issue a certificate: NAME.crt and NAME.key
    Issue {
        /// The folder with the authority's files
        folder: PathBuf,
        /// What the certificate is for
        role: Role,
        /// The common name of its holder
        name: String,
        /// A host name or address under which peers reach the holder; may be repeated
        #[arg(long = "host", value_name = "HOST", default_values = ["127.0.0.1", "::1", "localhost"])]
        hosts: Vec<String>,
    },
}

impl PkiCommand {
    /// Carries the task out.
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Init { folder, organization } => {
                Authority::create(&folder, &organization)?;
                output.line(format_args!(
                    "created {} and its key",
                    file(&folder, AUTHORITY, "crt").display()
                ));
            }
            Self::Issue { folder, role, name, hosts } => {
                let issued = Authority::load(&folder)?.issue(role, &name, &hosts)?;
                output
                    .line(format_args!("created {} and its key", issued.cert.display()));
            }
        }
        Ok(())
    }
}

/// An authority whose files are in a folder.
pub struct Authority {
    folder: PathBuf,
    organization: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub cert: PathBuf,
    /// The key, readable by the owner alone.
    pub key: PathBuf,
}

impl Authority {
    /// Creates an authority in a folder, which is made if it is not there. An authority
    /// that is there already is not replaced.
    pub fn create(folder: &Path, organization: &str) -> Result<Self, PkiError> {
        let organization = checked(organization)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| PkiError::Write { path: folder.to_owned(), source })?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, "Certificate Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key)?;
        write_new(&file(folder, AUTHORITY, "key"), &key.serialize_pem(), 0o600)?;
        write_new(&file(folder, AUTHORITY, "crt"), &certificate.pem(), 0o644)?;
        Ok(Self {
            folder: folder.to_owned(),
            organization: organization.to_owned(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Loads the authority in a folder.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        let read = |extension| {
            let path = file(folder, AUTHORITY, extension);
            fs::read_to_string(&path).map_err(|source| PkiError::Read { path, source })
        };
        let cert = file(folder, AUTHORITY, "crt");
        let key = KeyPair::from_pem(&read("key")?)?;
        let issuer = Issuer::from_ca_cert_pem(&read("crt")?, key)?;
        let own = mplane_runtime::tls::identity_in(&cert)
            .ok_or_else(|| PkiError::NoOrganization { path: cert.clone() })?;
        let organization = own.names().next().unwrap_or_default().to_owned();
        Ok(Self { folder: folder.to_owned(), organization, issuer })
    }

    /// Returns the authority's certificate, which every member needs.
    pub fn cert(&self) -> PathBuf {
        file(&self.folder, AUTHORITY, "crt")
    }

    /// Issues a certificate for a name, beside the authority's files. Hosts are what peers
    /// call the holder; clients need none.
    pub fn issue(
        &self,
        role: Role,
        name: &str,
        hosts: &[String],
    ) -> Result<Issued, PkiError> {
        let name = checked(name)?;
        let hosts = if role == Role::Client { Vec::new() } else { hosts.to_vec() };
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, self.organization.clone());
        params.distinguished_name.push(DnType::OrganizationalUnitName, role.unit());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Supervisor | Role::Component => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, LIFETIME);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let issued = Issued {
            cert: file(&self.folder, name, "crt"),
            key: file(&self.folder, name, "key"),
        };
        write_new(&issued.key, &key.serialize_pem(), 0o600)?;
        write_new(&issued.cert, &certificate.pem(), 0o644)?;
        Ok(issued)
    }
}

/// Sets when a certificate is valid.
fn set_validity(params: &mut CertificateParams, lifetime: Duration) {
    params.not_before = OffsetDateTime::now_utc() - BACKDATED;
    params.not_after = params.not_before + lifetime;
}

/// Returns the path of a file in a folder.
fn file(folder: &Path, name: &str, extension: &str) -> PathBuf {
    folder.join(format!("{name}.{extension}"))
}

/// Checks an organization or name: dots would make identities ambiguous, and names are
/// file names too.
fn checked(name: &str) -> Result<&str, PkiError> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS;
    if fits && name.chars().all(allowed) && name.trim() == name && name != AUTHORITY {
        Ok(name)
    } else {
        Err(PkiError::Name(name.chars().take(NAME_CHARS + 1).collect()))
    }
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PkiError::Exists(path.to_owned()),
        _ => PkiError::Write { path: path.to_owned(), source },
    })
}

/// A certificate that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A name that would make identities ambiguous.
    #[error(
        "{0:?} cannot be a name: use up to {NAME_CHARS} letters, digits, blanks, - and _ (dots would make identities ambiguous, and \"{AUTHORITY}\" is taken)"
    )]
    Name(String),
    /// The file is there.
    #[error("{0} exists and is not replaced; choose another name, or remove it")]
    Exists(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {path}; `mplane pki init` creates an authority")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The authority does not say whose it is.
    #[error("the certificate in {path} names no organization")]
    NoOrganization {
        /// The file.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}
