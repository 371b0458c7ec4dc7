//! `mplane why`, `mplane measurements`, `mplane results` and `mplane components`: what a
//! supervisor knows.
//!
//! Who may read the files of its store is told all; a client asks over the network and is
//! told of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use mplane::access::Identity;
use mplane::features::Features;
use mplane::json;
use mplane::message::{Message, Redemption};
use mplane::token::Token;
use mplane_runtime::http::client::{Ask, BaseUrl, HttpClient};
use mplane_supervisor::directory::presence;
use mplane_supervisor::store::{Archive, Filter, Id, Page, Stories, Story};
use mplane_supervisor::tell::{ComponentLine, ComponentPage, ComponentStory};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Format;
use crate::output::{Output, table};
use crate::programs::load;
use crate::shell::show_result;
use crate::{Failure, Told};

/// Where a supervisor is asked.
#[derive(Args, Clone, Debug)]
struct Where {
    /// The configuration of a supervisor on this machine, or of a client
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to print
    #[arg(long, short, default_value = "text")]
    output: Format,
}

/// The arguments of `mplane why`.
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// The token of the specification, of either side of the supervisor, or its label
    token: String,
    #[command(flatten)]
    place: Where,
}

/// The arguments of `mplane measurements`.
#[derive(Args, Clone, Debug)]
pub struct MeasurementsArgs {
    /// Only those with this text in their label or that of their capability
    #[arg(long)]
    label: Option<String>,
    /// Only those in this state: queued, handed, promised, result, exception, interrupted
    /// or lost
    #[arg(long, value_parser = ["queued", "handed", "promised", "result", "exception", "interrupted", "lost"])]
    state: Option<String>,
    /// Only those of components with this text in their identity
    #[arg(long, value_name = "TEXT")]
    component: Option<String>,
    /// Only those of clients with this text in their identity; over the network each client
    /// is told of its own
    #[arg(long, value_name = "TEXT")]
    client: Option<String>,
    /// Only those before this one, as the end of a page tells
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// How many at most
    #[arg(long, short = 'n', default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    place: Where,
}

/// The arguments of `mplane results`.
#[derive(Args, Clone, Debug)]
pub struct ResultsArgs {
    /// The token of a specification: what came of it is printed. Without it, those of which
    /// something is kept are listed
    token: Option<Token>,
    /// Only those with this text in their label or that of their capability
    #[arg(long, conflicts_with = "token")]
    label: Option<String>,
    /// Only those of components with this text in their identity
    #[arg(long, value_name = "TEXT", conflicts_with = "token")]
    component: Option<String>,
    /// Only those of clients with this text in their identity; over the network each client
    /// is told of its own
    #[arg(long, value_name = "TEXT", conflicts_with = "token")]
    client: Option<String>,
    /// Only those before this one, as the end of a page tells
    #[arg(long, value_name = "ID", conflicts_with = "token")]
    before: Option<u64>,
    /// How many at most
    #[arg(long, short = 'n', default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    place: Where,
}

/// The arguments of `mplane components`.
#[derive(Args, Clone, Debug)]
pub struct ComponentsArgs {
    /// The identity of a component: all that is known of it is printed, and what it offers and
    /// has offered
    #[arg(conflicts_with_all = ["identity", "presence", "after"])]
    component: Option<String>,
    /// Only those with this text in their identity
    #[arg(long)]
    identity: Option<String>,
    /// Only those that are connected, silent or gone
    #[arg(long, value_parser = ["connected", "silent", "gone"])]
    presence: Option<String>,
    /// Only those after this one, as the end of a page tells
    #[arg(long, value_name = "IDENTITY")]
    after: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    place: Where,
}

/// Where the answers come from.
enum Source {
    /// The files of a supervisor, and how long it offers a component that is silent.
    Files(Archive, SignedDuration),
    /// The supervisor itself.
    Network(Box<HttpClient>, BaseUrl),
}

impl Source {
    /// Finds out where to ask.
    fn open(config_path: &Path) -> Result<Self, Failure> {
        let config = load(config_path)?;
        if let Some(supervisor) = &config.supervisor {
            let Some(data) = &supervisor.data else {
                return Err(Told(format!(
                    "the supervisor of {} keeps nothing: supervisor.data names no folder",
                    config_path.display()
                ))
                .into());
            };
            let expiry = SignedDuration::try_from(supervisor.component_expiry)
                .unwrap_or(SignedDuration::MAX);
            return Ok(Self::Files(Archive::open(data)?, expiry));
        }
        let Some(client) = &config.client else {
            return Err(Told(format!(
                "{} is neither the configuration of a supervisor nor of a client: it has no \
                 section [supervisor] or [client]",
                config_path.display()
            ))
            .into());
        };
        let http = HttpClient::new(config.credentials()?);
        Ok(Self::Network(Box::new(http), client.url.clone()))
    }
}

/// Asks a supervisor over the network.
async fn ask<T: DeserializeOwned>(
    http: &HttpClient,
    base: &BaseUrl,
    path: &str,
) -> Result<T, Failure> {
    let ask = Ask { method: Method::GET, path, messages: &[], wait: Duration::ZERO };
    let answer = http.ask(base, ask).await?;
    if answer.status != StatusCode::OK {
        let known: Result<serde_json::Value, _> = serde_json::from_slice(&answer.body);
        let reason =
            known.ok().and_then(|told| Some(told.get("error")?.as_str()?.to_owned()));
        let reason = reason.unwrap_or_else(|| format!("it answers {}", answer.status));
        return Err(Told(format!("{base}: {reason}")).into());
    }
    Ok(serde_json::from_slice(&answer.body)?)
}

/// Writes the parameters of a query behind a path.
fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut written = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            written.push(separator);
            written.push_str(name);
            written.push('=');
            escape(value, &mut written);
            separator = '&';
        }
    }
    written
}

/// Writes text within a URL (RFC 3986, section 2.1).
fn escape(text: &str, url: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.extend(format!("%{byte:02X}").chars());
        }
    }
}

/// Refuses to choose clients over the network.
fn refuse_client(client: Option<&str>) -> Result<(), Failure> {
    match client {
        Some(_) => Err(Told(
            "over the network a client is told of its own specifications; --client is for \
             the configuration of a supervisor on this machine"
                .into(),
        )
        .into()),
        None => Ok(()),
    }
}

/// Prints JSON.
fn print_json(output: &mut Output, what: &impl Serialize) -> Result<(), Failure> {
    output.line(serde_json::to_string_pretty(what)?);
    Ok(())
}

impl WhyArgs {
    /// Tells the story of a specification.
    pub async fn run(self, output: &mut Output) -> Result<(), Failure> {
        let stories: Stories = match Source::open(&self.place.config)? {
            Source::Files(archive, _) => {
                archive.stories(self.token.clone(), None).await?
            }
            Source::Network(http, base) => {
                let mut path = "/measurements/".to_owned();
                escape(&self.token, &mut path);
                ask(&http, &base, &path).await?
            }
        };
        if stories.is_empty() {
            return Err(Told(format!(
                "nothing is known of {}: no specification has this token or label, or it is \
                 not kept any more",
                self.token
            ))
            .into());
        }
        if self.place.output == Format::Json {
            return print_json(output, &stories);
        }
        for story in &stories.stories {
            tell(output, story);
        }
        for refused in &stories.refused {
            let label = refused.label.as_deref().unwrap_or("a specification");
            output.line(format_args!(
                "{label} (token {}) of {} was refused:",
                refused.token, refused.client
            ));
            output.line(format_args!("  {}  {}", refused.at, refused.reason));
        }
        Ok(())
    }
}

/// Tells a story in words.
fn tell(output: &mut Output, story: &Story) {
    let about = &story.measurement;
    let label = about.label.as_deref().unwrap_or("a specification");
    let capability = about.capability.as_deref().unwrap_or("a capability without label");
    output.line(format_args!("{label} (token {}), number {}:", about.token, about.id));
    let (whom, state) = match (story.parts.len(), about.state.as_str()) {
        (0, state) => (about.component.clone(), in_words(state)),
        (many, "promised") => (format!("{many} components"), "at work"),
        (many, state) => (format!("{many} components"), in_words(state)),
    };
    output.line(format_args!(
        "  {} asked {whom} for {capability}; it is now {state}",
        about.client
    ));
    let rows = story.steps.iter().map(|step| {
        let detail = step.detail.clone().unwrap_or_default();
        [format!("  {}", step.at), step.what.clone(), detail]
    });
    output.line(table(&["  when (UTC)", "what", "more"], rows));
    if !story.parts.is_empty() {
        let rows = story.parts.iter().map(|part| {
            let label = part.label.clone().unwrap_or_default();
            [format!("  {}", part.component), part.state.clone(), label]
        });
        output.line(table(&["  component", "state", "its own story: why"], rows));
    }
    if let Some(deadline) = about.deadline.as_ref().filter(|_| about.settled.is_none()) {
        output.line(format_args!("  It is given up at {deadline} if nothing comes."));
    }
}

/// Says what a state means.
fn in_words(state: &str) -> &str {
    match state {
        "queued" => "waiting for the component to fetch it",
        "handed" => "fetched by the component, which has not answered yet",
        "promised" => "at work: the component has promised a result",
        "result" => "done: there is a result",
        "exception" => "failed: the component has said why",
        "interrupted" => "interrupted before the component fetched it",
        "lost" => "lost: its time is over and nothing came",
        other => other,
    }
}

impl MeasurementsArgs {
    /// Lists specifications.
    pub async fn run(self, output: &mut Output) -> Result<(), Failure> {
        let page: Page = match Source::open(&self.place.config)? {
            Source::Files(archive, _) => {
                let filter = Filter {
                    label: self.label.clone(),
                    client_part: self.client.clone(),
                    component_part: self.component.clone(),
                    state: self.state.clone(),
                    ..Filter::default()
                };
                archive.measurements(filter, self.before, self.limit).await?
            }
            Source::Network(http, base) => {
                refuse_client(self.client.as_deref())?;
                let path = query(
                    "/measurements",
                    &[
                        ("label", self.label.clone()),
                        ("component", self.component.clone()),
                        ("state", self.state.clone()),
                        ("before", self.before.map(|before| before.to_string())),
                        ("limit", Some(self.limit.to_string())),
                    ],
                );
                ask(&http, &base, &path).await?
            }
        };
        if self.place.output == Format::Json {
            return print_json(output, &page);
        }
        let rows = page.measurements.iter().map(|known| {
            [
                known.id.to_string(),
                known.accepted.clone(),
                known.label.clone().unwrap_or_default(),
                known.state.clone(),
                known.client.clone(),
                known.component.clone(),
                known.token.clone(),
            ]
        });
        let header = ["id", "accepted", "label", "state", "client", "component", "token"];
        output.line(table(&header, rows));
        if let Some(before) = page.before {
            output.note(format_args!("There are more: --before {before}"));
        }
        Ok(())
    }
}

impl ResultsArgs {
    /// Lists results, or prints one.
    pub async fn run(self, output: &mut Output) -> Result<(), Failure> {
        match &self.token {
            Some(token) => self.print(token, output).await,
            None => self.list(output).await,
        }
    }

    /// Lists results.
    async fn list(&self, output: &mut Output) -> Result<(), Failure> {
        let page: Page = match Source::open(&self.place.config)? {
            Source::Files(archive, _) => {
                let filter = Filter {
                    label: self.label.clone(),
                    client_part: self.client.clone(),
                    component_part: self.component.clone(),
                    is_kept: true,
                    ..Filter::default()
                };
                archive.measurements(filter, self.before, self.limit).await?
            }
            Source::Network(http, base) => {
                refuse_client(self.client.as_deref())?;
                let path = query(
                    "/measurements",
                    &[
                        ("label", self.label.clone()),
                        ("component", self.component.clone()),
                        ("kept", Some("true".to_owned())),
                        ("before", self.before.map(|before| before.to_string())),
                        ("limit", Some(self.limit.to_string())),
                    ],
                );
                ask(&http, &base, &path).await?
            }
        };
        if self.place.output == Format::Json {
            return print_json(output, &page);
        }
        let rows = page.measurements.iter().map(|known| {
            [
                known.id.to_string(),
                known.settled.clone().unwrap_or_default(),
                known.label.clone().unwrap_or_default(),
                known.state.clone(),
                known.result_bytes.to_string(),
                known.redeemed.clone().unwrap_or_else(|| "no".to_owned()),
                known.component.clone(),
                known.token.clone(),
            ]
        });
        let header =
            ["id", "ended", "label", "kind", "bytes", "redeemed", "component", "token"];
        output.line(table(&header, rows));
        if let Some(before) = page.before {
            output.note(format_args!("There are more: --before {before}"));
        }
        Ok(())
    }

    /// Prints what came of a specification.
    async fn print(&self, token: &Token, output: &mut Output) -> Result<(), Failure> {
        let registries = load(&self.place.config)?.registries.load()?;
        let messages = match Source::open(&self.place.config)? {
            Source::Files(archive, _) => {
                let stories = archive.stories(token.to_string(), None).await?.stories;
                let kept = stories.iter().find(|it| it.measurement.result_bytes > 0);
                let text = match kept {
                    Some(story) => archive.result(Id(story.measurement.id)).await?,
                    None => None,
                };
                let text = text.ok_or_else(|| {
                    Told(format!(
                        "nothing is kept of what came of {token}; mplane why {token} tells \
                         what is known of it"
                    ))
                })?;
                json::decode_all(text.as_bytes(), &registries)?
            }
            Source::Network(http, base) => {
                let redemption = Redemption::token_only("measure", token.clone());
                let messages = [redemption.into()];
                let (method, wait) = (Method::POST, Duration::ZERO);
                let ask = Ask { method, path: "/", messages: &messages, wait };
                let answer = http.ask(&base, ask).await?;
                let messages = answer.messages(&registries)?;
                if answer.status != StatusCode::OK || messages.is_empty() {
                    let status = answer.status;
                    let body = String::from_utf8_lossy(&answer.body);
                    let body: String = body.chars().take(200).collect();
                    return Err(Told(format!("{base} answered {status}: {body}")).into());
                }
                messages
            }
        };
        for message in messages {
            if self.place.output == Format::Json {
                let text = json::encode(&message, Features::OURS.form());
                output.line(String::from_utf8_lossy(&text));
                continue;
            }
            match message {
                Message::Result(result) => show_result(&result, output),
                Message::Envelope(results) => {
                    for message in results.messages() {
                        if let Message::Result(result) = message {
                            show_result(result, output);
                        }
                    }
                }
                Message::Exception(exception) => {
                    return Err(Told(exception.message().to_owned()).into());
                }
                other => output.line(other),
            }
        }
        Ok(())
    }
}

impl ComponentsArgs {
    /// Lists components, or tells all of one.
    pub async fn run(self, output: &mut Output) -> Result<(), Failure> {
        match &self.component {
            Some(name) => self.tell(name, output).await,
            None => self.list(output).await,
        }
    }

    /// Tells all of a component.
    async fn tell(&self, name: &str, output: &mut Output) -> Result<(), Failure> {
        let story = match Source::open(&self.place.config)? {
            Source::Files(archive, expiry) => {
                let saved = archive.components().await?;
                let saved = saved.into_iter().find(|it| it.identity.to_string() == name);
                let saved = saved.ok_or_else(|| {
                    Told(format!("no component {name} has ever registered here"))
                })?;
                let presence = presence(saved.last_seen, expiry, Timestamp::now());
                let component = ComponentLine::of_saved(&saved, presence.word());
                let history = archive.history(&saved.identity).await?;
                ComponentStory { component, history }
            }
            Source::Network(http, base) => {
                let mut path = "/components/".to_owned();
                escape(name, &mut path);
                ask(&http, &base, &path).await?
            }
        };
        if self.place.output == Format::Json {
            return print_json(output, &story);
        }
        let ComponentStory { component, history } = story;
        let unknown = || "not known".to_owned();
        let clock = component.clock_ahead_s.map_or_else(unknown, |ahead| match ahead {
            0 => "as the supervisor's".to_owned(),
            ahead if ahead > 0 => format!("{ahead} s ahead of the supervisor's"),
            behind => format!("{} s behind the supervisor's", behind.unsigned_abs()),
        });
        for (what, value) in [
            ("presence", component.presence),
            ("first seen", component.first_seen),
            ("last seen", component.last_seen),
            ("address", component.address.unwrap_or_else(unknown)),
            ("program", component.version.unwrap_or_else(unknown)),
            ("clock", clock),
            ("dialect", component.dialect),
            ("features", component.features),
        ] {
            output.line(format_args!("{what:<11}{value}"));
        }
        let rows = history.into_iter().map(|offered| {
            [
                offered.label.unwrap_or_default(),
                offered.since,
                offered.until.unwrap_or_else(|| "offered".to_owned()),
                offered.gone.unwrap_or_default(),
                offered.token,
            ]
        });
        output.line(table(&["capability", "since", "until", "why", "token"], rows));
        Ok(())
    }

    /// Lists components.
    async fn list(&self, output: &mut Output) -> Result<(), Failure> {
        let mut page: ComponentPage = match Source::open(&self.place.config)? {
            Source::Files(archive, expiry) => self.of_files(&archive, expiry).await?,
            Source::Network(http, base) => {
                let path = query(
                    "/components",
                    &[
                        ("identity", self.identity.clone()),
                        ("presence", self.presence.clone()),
                        ("after", self.after.clone()),
                    ],
                );
                ask(&http, &base, &path).await?
            }
        };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if page.components.len() > limit {
            page.components.truncate(limit);
            page.after = page.components.last().map(|last| last.identity.clone());
        }
        if self.place.output == Format::Json {
            return print_json(output, &page);
        }
        let rows = page.components.iter().map(|known| {
            [
                known.identity.clone(),
                known.presence.clone(),
                known.last_seen.clone(),
                known.capabilities.join(" "),
            ]
        });
        output.line(table(&["component", "presence", "last seen", "capabilities"], rows));
        if let Some(after) = &page.after {
            output.note(format_args!("There are more: --after {after}"));
        }
        Ok(())
    }

    /// Lists the components in the files of a store. When they were last heard of is
    /// written there every half minute.
    async fn of_files(
        &self,
        archive: &Archive,
        expiry: SignedDuration,
    ) -> Result<ComponentPage, Failure> {
        let now = Timestamp::now();
        let is_meant = |identity: &Identity, known: &str| {
            let text = identity.to_string();
            self.identity.as_ref().is_none_or(|part| text.contains(part))
                && self.presence.as_ref().is_none_or(|presence| known == presence)
                && self.after.as_ref().is_none_or(|after| text > *after)
        };
        let mut components: Vec<ComponentLine> = archive
            .components()
            .await?
            .into_iter()
            .map(|saved| (presence(saved.last_seen, expiry, now).word(), saved))
            .filter(|(word, saved)| is_meant(&saved.identity, word))
            .map(|(word, saved)| ComponentLine::of_saved(&saved, word))
            .collect();
        components.sort_by(|one, other| one.identity.cmp(&other.identity));
        Ok(ComponentPage { components, after: None })
    }
}
