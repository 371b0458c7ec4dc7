//! Measurements with folders of their own, in which the test is tStat.

use std::fs;

use mplane::message::Specification;
use mplane_runtime::service::Rows;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::service::{ServiceConfig, services};
use crate::tstat::{Flag, is_on};

const CONF: &str = "[log]\nlog_tcp_complete = 0 # 0\n[options]\ntcplog_end_to_end = 0\n\
                    tcplog_layer7 = 0\ntcplog_options = 0\ntcplog_p2p = 0\n";

/// A tStat without packets.
struct Fake(TempDir);

impl Fake {
    fn new() -> Self {
        let fake = Self(tempfile::tempdir().expect("there is room"));
        fs::write(fake.conf(), CONF).expect("it is ours");
        fs::create_dir(fake.logs()).expect("it is ours");
        fake
    }

    fn conf(&self) -> PathBuf {
        self.0.path().join("runtime.conf")
    }

    fn logs(&self) -> PathBuf {
        self.0.path().join("logs")
    }

    /// Returns its services.
    async fn services(&self) -> Result<Vec<Arc<dyn Service>>, String> {
        let config = ServiceConfig::Tstat {
            runtime_conf: Some(self.conf()),
            log_dir: Some(self.logs()),
            net: None,
            simulate: false,
        };
        let services = services(&config, &Registries::embedded()).await;
        services.map_err(|error| report(&error))
    }

    /// Says whether a flag is on.
    fn has(&self, flag: Flag) -> bool {
        is_on(&fs::read(self.conf()).expect("it is there"), flag).expect("it has it")
    }

    /// Writes a new log with so many flows that end now.
    fn write(&self, flows: usize) {
        let now = Timestamp::now().as_microsecond();
        let line = format!("{}.{:03} 50123\n", now / 1_000, now % 1_000);
        let folder = self.logs().join("2026_11_29_22_00.out");
        fs::create_dir_all(&folder).expect("it is ours");
        let text = format!("#00#last:1 c_port:2\n{}", line.repeat(flows));
        fs::write(folder.join("new"), text).expect("it is ours");
        fs::rename(folder.join("new"), folder.join("log_tcp_complete"))
            .expect("it is ours");
    }
}

/// A measurement that goes on until it is stopped.
struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Result<Completed, RunError>>,
}

/// Starts a measurement.
fn start(service: &Arc<dyn Service>, duration: Option<Duration>) -> Running {
    let specification = Specification::of(&service.capability());
    let rows = Rows::new(&specification);
    let stop = CancellationToken::new();
    let work = Work { specification, duration, rows, stop: stop.clone() };
    let service = Arc::clone(service);
    let ended = tokio::spawn(async move { service.run(work).await });
    Running { stop, ended }
}

impl Running {
    /// Waits until a condition holds, and has the measurement still go on.
    async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            assert!(!self.ended.is_finished(), "it goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the measurement; returns its metadata as text.
    async fn end(self) -> Result<Vec<String>, RunError> {
        self.stop.cancel();
        let completed = self.ended.await.expect("it does not panic")?;
        let text = |(element, value): &(Arc<Element>, Option<Value>)| {
            let value = value.as_ref().map_or_else(|| "*".into(), ToString::to_string);
            format!("{element} {value}")
        };
        Ok(completed.metadata.iter().map(text).collect())
    }
}

#[tokio::test]
async fn flags_are_on_while_somebody_measures_with_them() {
    let fake = Fake::new();
    let services = fake.services().await.unwrap();
    assert_eq!(services.len(), 5);
    let core = start(&services[0], None);
    core.until(|| fake.has(Flag::LogTcpComplete)).await;
    let times = start(&services[1], None);
    times.until(|| fake.has(Flag::EndToEnd)).await;
    // A configuration that is read again makes services anew.
    let anew = fake.services().await.unwrap();
    let again = start(&anew[1], Some(Duration::ZERO));
    let completed = again.ended.await.unwrap().unwrap();
    assert_eq!(completed.metadata.len(), 1);
    assert!(fake.has(Flag::LogTcpComplete) && fake.has(Flag::EndToEnd));
    fake.write(7);
    assert_eq!(times.end().await.unwrap(), ["log.lines.unreadable 0"]);
    assert!(fake.has(Flag::LogTcpComplete) && !fake.has(Flag::EndToEnd));
    core.end().await.unwrap();
    assert_eq!(fs::read_to_string(fake.conf()).unwrap(), CONF);
}

#[tokio::test]
async fn a_run_that_is_dropped_switches_its_flags_off() {
    let fake = Fake::new();
    let services = fake.services().await.unwrap();
    let core = start(&services[0], None);
    core.until(|| fake.has(Flag::LogTcpComplete)).await;
    core.ended.abort();
    assert!(core.ended.await.unwrap_err().is_cancelled());
    assert_eq!(fs::read_to_string(fake.conf()).unwrap(), CONF);
}

#[tokio::test]
async fn a_result_is_no_larger_than_a_message() {
    let fake = Fake::new();
    let services = fake.services().await.unwrap();
    let most = most_rows(Set::Core.columns().len());
    assert_eq!((most, most_rows(1)), (95_238, limits::RESULT_ROWS));
    let core = start(&services[0], None);
    core.until(|| fake.has(Flag::LogTcpComplete)).await;
    fake.write(most);
    core.end().await.unwrap();
    let core = start(&services[0], None);
    core.until(|| fake.has(Flag::LogTcpComplete)).await;
    fake.write(most + 1);
    let error = core.end().await.unwrap_err().to_string();
    assert!(error.contains("42 columns has at most 95238 rows"), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_told_at_the_start_with_its_key() {
    let fake = Fake::new();
    let read = |text: &str| -> Result<ServiceConfig, _> { toml::from_str(text) };
    for (text, problem) in [
        ("", "service tstat needs runtime-conf: "),
        ("log-dir = \"b\"", "service tstat needs runtime-conf: "),
        ("runtime-conf = \"a\"", "service tstat needs log-dir: "),
    ] {
        let config = read(&format!("type = \"tstat\"\n{text}")).unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(problem), "{text}: {error}");
        assert!(error.contains("simulate = true"), "{text}: {error}");
    }
    fs::remove_dir(fake.logs()).unwrap();
    let error = fake.services().await.err().unwrap();
    assert!(error.starts_with("log-dir of service tstat cannot be used: "), "{error}");
    fs::remove_file(fake.conf()).unwrap();
    let error = fake.services().await.err().unwrap();
    assert!(
        error.starts_with("runtime-conf of service tstat cannot be used: "),
        "{error}"
    );
}

#[tokio::test]
async fn a_set_whose_flag_is_missing_is_not_offered() {
    let fake = Fake::new();
    fs::write(fake.conf(), CONF.replace("tcplog_layer7", "tcplog_layer_7")).unwrap();
    let services = fake.services().await.unwrap();
    let labels = services.iter().map(|it| it.capability().label().map(ToOwned::to_owned));
    let labels: Vec<_> = labels.flatten().collect();
    assert_eq!(labels.len(), 4);
    assert!(!labels.iter().any(|label| label.ends_with("layer7")), "{labels:?}");
}

#[tokio::test]
async fn simulated_values_say_that_they_are() {
    let registries = Registries::embedded();
    let text = "type = \"tstat\"\nsimulate = true\nnet = \"10.0.0.0/8\"";
    let config: ServiceConfig = toml::from_str(text).unwrap();
    let services = services(&config, &registries).await.unwrap();
    assert_eq!(services.len(), 5);
    for service in services {
        let capability = service.capability();
        let said = |name| capability.find_metadata(name).map(ToString::to_string);
        assert_eq!(said("measurement.simulated").as_deref(), Some("True"));
        let specification = Specification::of(&capability);
        assert_eq!(specification.missing().count(), 0, "the network has its value");
        let value = |name| specification.value(name).map(ToString::to_string);
        assert_eq!(value("subnet.ip4").as_deref(), Some("10.0.0.0"));
        assert_eq!(value("subnet.netmask").as_deref(), Some("8"));
        let run = start(&service, None);
        assert_eq!(run.end().await.unwrap(), ["measurement.simulated True"]);
    }
}
