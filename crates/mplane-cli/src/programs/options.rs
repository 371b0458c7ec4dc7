//! The arguments of a component: a configuration, or the start-up options of the probe of
//! the client-supervisor-probe system, which is a proxy of tStat.
//!
//! *Differences*: that probe makes up its results, so it needs no folder of logs. Here it
//! needs `--log-dir`, or `--simulate` to make them up.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Parser;
use mplane_probe::service::{ServiceConfig, Subnet};
use mplane_runtime::config::legacy::RiProbeOptions;

use super::Source;
use crate::logging::LogArgs;

/// The supervisor's address unless chosen.
const SUPERVISOR: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The supervisor's port unless chosen.
const PORT: u16 = 8_888;

/// The network that tStat watches unless chosen.
const NET: &str = "192.168.1.0/24";

/// The arguments of a component. What is missing or too much is told by
/// [`ComponentArgs::source`], with what to do.
#[derive(Clone, Debug, Parser)]
pub struct ComponentArgs {
    /// The configuration, in TOML or in a form of the reference implementation
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the files that it names, and exit
    #[arg(long)]
    pub(super) check: bool,
    /// runtime.conf of tStat, instead of a configuration
    #[arg(short = 'T', long, value_name = "FILE")]
    tstat_runtimeconf: Option<PathBuf>,
    /// Folder to which tStat writes its logs, with -T
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Invent values, without tStat (instead of -T)
    #[arg(long)]
    simulate: bool,
    /// File with cert=, key= and ca-chain=, with -T
    #[arg(short, long, value_name = "FILE")]
    certfile: Option<PathBuf>,
    /// Speak plain HTTP, within this machine (instead of --certfile)
    #[arg(long)]
    disable_ssl: bool,
    /// Address of the supervisor, with -T [default: 127.0.0.1]
    #[arg(short = 'd', long, value_name = "IP4")]
    supervisor_ip4: Option<Ipv4Addr>,
    /// Port of the supervisor, with -T [default: 8888]
    #[arg(
        short = 'p',
        long,
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    supervisor_port: Option<u16>,
    /// Network that tStat watches, with -T [default: 192.168.1.0/24]
    #[arg(short = 'n', long, value_name = "NET")]
    net_address: Option<Subnet>,
    /// How to log.
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl ComponentArgs {
    /// Returns where the configuration comes from.
    pub(super) fn source(self) -> Result<Source, UsageError> {
        if let Some(path) = self.config {
            let given = [
                ("--tstat-runtimeconf", self.tstat_runtimeconf.is_some()),
                ("--log-dir", self.log_dir.is_some()),
                ("--simulate", self.simulate),
                ("--certfile", self.certfile.is_some()),
                ("--disable-ssl", self.disable_ssl),
                ("--supervisor-ip4", self.supervisor_ip4.is_some()),
                ("--supervisor-port", self.supervisor_port.is_some()),
                ("--net-address", self.net_address.is_some()),
            ];
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                Some((option, _)) => Err(UsageError::Config { option }),
                None => Ok(Source::File(path)),
            };
        }
        if self.tstat_runtimeconf.is_none() && !self.simulate {
            return Err(UsageError::NoRuntimeConf);
        }
        if self.log_dir.is_none() && !self.simulate {
            return Err(UsageError::NoLogDir);
        }
        match (&self.certfile, self.disable_ssl) {
            (None, false) => return Err(UsageError::NoCertfile),
            (Some(_), true) => return Err(UsageError::Certfile),
            _ => {}
        }
        let net = self.net_address.or_else(|| NET.parse().ok());
        let service = ServiceConfig::Tstat {
            runtime_conf: self.tstat_runtimeconf,
            log_dir: self.log_dir,
            net,
            simulate: self.simulate,
        };
        Ok(Source::Probe(Box::new(RiProbeOptions {
            certs: self.certfile,
            address: self.supervisor_ip4.unwrap_or(SUPERVISOR),
            port: self.supervisor_port.unwrap_or(PORT),
            service,
        })))
    }
}

/// Arguments that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    /// An option of the probe beside a configuration.
    #[error(
        "{option} cannot be used with --config: leave it out, and write what it says into \
         the file"
    )]
    Config {
        /// The option.
        option: &'static str,
    },
    /// Nothing says what to do.
    #[error(
        "--config FILE is missing; a probe of tStat starts without it, with \
         --tstat-runtimeconf FILE (-T)"
    )]
    NoRuntimeConf,
    /// Nothing says where the logs are.
    #[error(
        "--log-dir DIR is missing: the folder to which tStat writes its logs, its option -s; \
         --simulate does without, and invents values"
    )]
    NoLogDir,
    /// Nothing says who this is.
    #[error(
        "--certfile FILE (-c) is missing: a file with cert=, key= and ca-chain=; \
         --disable-ssl does without, and speaks plain HTTP within this machine"
    )]
    NoCertfile,
    /// Both TLS and plain HTTP.
    #[error("--certfile cannot be used with --disable-ssl: leave one of them out")]
    Certfile,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(arguments: &[&str]) -> Result<Source, String> {
        let arguments = ["mpcom"].into_iter().chain(arguments.iter().copied());
        let arguments = ComponentArgs::try_parse_from(arguments);
        let arguments = arguments.map_err(|error| error.to_string())?;
        arguments.source().map_err(|error| error.to_string())
    }

    #[test]
    fn the_options_of_a_probe_say_what_a_configuration_says() {
        let source =
            source(&["-T", "a/runtime.conf", "--log-dir", "b", "-c", "certs.conf"]);
        let Ok(Source::Probe(options)) = source else { panic!("{source:?}") };
        let ServiceConfig::Tstat { runtime_conf, log_dir, net, simulate } =
            options.service
        else {
            panic!("{options:?}")
        };
        assert_eq!(runtime_conf, Some("a/runtime.conf".into()));
        assert_eq!(log_dir, Some("b".into()));
        assert_eq!(net.map(|net| net.to_string()).as_deref(), Some(NET));
        assert!(!simulate);
        assert_eq!((options.address, options.port), (Ipv4Addr::LOCALHOST, 8_888));
        assert_eq!(options.certs, Some("certs.conf".into()));
    }

    #[test]
    fn every_option_of_a_probe_has_its_effect() {
        let source = source(&[
            "--simulate",
            "--disable-ssl",
            "-d",
            "127.0.0.2",
            "-p",
            "1",
            "-n",
            "10.0.0.0/8",
        ]);
        let Ok(Source::Probe(options)) = source else { panic!("{source:?}") };
        let said = format!("{options:?}");
        assert!(said.contains("10.0.0.0") && said.contains("simulate: true"), "{said}");
        assert_eq!((options.address, options.port), ("127.0.0.2".parse().unwrap(), 1));
        assert_eq!(options.certs, None);
    }

    #[test]
    fn what_is_missing_or_too_much_is_told_with_what_to_do() {
        let logs = ["-T", "a", "--log-dir", "b"];
        for (arguments, problem) in [
            (&[][..], "--config FILE is missing; a probe of tStat starts without it"),
            (&["-c", "certs.conf"], "--config FILE is missing; a probe"),
            (&["-T", "a", "-c", "c"], "--log-dir DIR is missing: the folder"),
            (&logs, "--certfile FILE (-c) is missing: a file with cert=, key="),
            (&["--simulate"], "--certfile FILE (-c) is missing: a file"),
            (
                &["--simulate", "-c", "c", "--disable-ssl"],
                "--certfile cannot be used with --disable-ssl: leave one of them out",
            ),
            (&["--simulate", "-n", "192.168.1.0/25"], "with a mask of 8 to 24 bits"),
            (&["--simulate", "-n", "home"], "\"home\" is no network"),
            (&["--simulate", "-p", "0"], "0 is not in 1..=65535"),
            (&["--simulate", "-d", "here"], "invalid value 'here' for '--supervisor-ip4"),
        ] {
            let error = source(arguments).unwrap_err();
            assert!(error.contains(problem), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn a_configuration_goes_with_no_option_of_a_probe() {
        let config = ["--config", "component.toml"];
        assert!(matches!(source(&config), Ok(Source::File(_))));
        for option in [
            &["--tstat-runtimeconf", "a"][..],
            &["--log-dir", "a"],
            &["--simulate"],
            &["--certfile", "a"],
            &["--disable-ssl"],
            &["--supervisor-ip4", "127.0.0.1"],
            &["--supervisor-port", "8888"],
            &["--net-address", NET],
        ] {
            let error = source(&[&config, option].concat()).unwrap_err();
            let expected =
                format!("{} cannot be used with --config: leave it", option[0]);
            assert!(error.starts_with(&expected), "{option:?}: {error}");
        }
    }
}
