//! What components and clients do: they offer, fetch, promise and deliver; they specify and
//! redeem.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use axum::body::Bytes;
use http::{Method, StatusCode};
use mplane::features::Features;
use mplane::json;
use mplane::message::{
    Capability, Envelope, Message, Receipt, Redemption, ResultStatement, Specification,
    Statement, Table,
};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::token::Token;
use mplane::when::{Instant as Moment, When};
use mplane_runtime::http::path;
use mplane_runtime::tls::fresh_token;

use crate::peer::{Ask, PAUSE, Peer, each};

/// How many capabilities a component has.
pub(super) const CAPABILITIES: usize = 10;

/// How long components and clients wait for an answer, in seconds, as ours do.
const LONG: u64 = 20;

/// The parameter that carries the number of a specification.
const NUMBER: &str = "packets.ip";

/// What the capabilities differ in, one column each.
const COLUMNS: [&str; CAPABILITIES] = [
    "rtt.us",
    "rtt.ms",
    "hops.ip",
    "hops.as",
    "iat.us",
    "iat.ms",
    "packets.lost",
    "packets.duplicate",
    "octets.ip",
    "octets.tcp",
];

/// The column whose value tells one run from another.
const VALUE: &str = "delay.twoway.icmp.us";

/// Whose supervisor components and clients speak with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Ours: it answers when there is something, and knows components by their names.
    Ours,
    /// That of the reference: it answers at once, and wants serial numbers in labels.
    Reference,
}

impl Whose {
    /// Pauses before the same is asked again, where answers do not wait for news.
    async fn pause(self) {
        if self == Self::Reference {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Returns the registries.
fn registries() -> &'static Registries {
    static REGISTRIES: OnceLock<Registries> = OnceLock::new();
    REGISTRIES.get_or_init(Registries::embedded)
}

/// Writes a message as our programs read it.
pub(super) fn written(message: &Message) -> Bytes {
    json::encode(message, Features::OURS.form()).into()
}

/// Makes one of the capabilities that all components offer, each from an address of its
/// own.
fn capability(name: &str, which: usize) -> Capability {
    let number: u32 = name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let [_, high, middle, low] = number.to_be_bytes();
    let statement = Statement::measure("now ... future".parse().expect("it is a scope"))
        .labelled(format!("bench-{which}"))
        .parameter(registries(), "source.ip4", &format!("10.{high}.{middle}.{low}"))
        .and_then(|made| made.parameter(registries(), "destination.ip4", "*"))
        .and_then(|made| made.parameter(registries(), NUMBER, "*"))
        .and_then(|made| made.column(registries(), "time"))
        .and_then(|made| made.column(registries(), VALUE))
        .and_then(|made| {
            made.column(registries(), COLUMNS.get(which).copied().unwrap_or(VALUE))
        });
    Capability::new(statement.expect("the elements are of the registry"))
}

/// Makes the specification with a number, of one of the capabilities of a component.
pub(super) fn specification(component: &str, number: u64, whose: Whose) -> Specification {
    let which = usize::try_from(number).unwrap_or(0) % CAPABILITIES;
    let mut specification = Specification::of(&capability(component, which));
    specification.set_when("now + 0s".parse().expect("it is a scope"));
    specification.set_label(Some(match whose {
        Whose::Ours => format!("bench-{which}@{component}"),
        Whose::Reference => format!("bench-{which}-{number}"),
    }));
    specification.set_token(Some(fresh_token()));
    for (name, value) in [("destination.ip4", "192.0.2.1"), (NUMBER, &number.to_string())]
    {
        specification.set_parameter(name, value).expect("it is allowed");
    }
    specification
}

/// Returns what a component sends to register.
pub(super) fn registration(name: &str) -> Ask {
    let offered = (0..CAPABILITIES).map(|which| capability(name, which).into()).collect();
    let envelope = Envelope::of(offered).with_content("capability").into();
    post(path::REGISTER_CAPABILITY, 0, written(&envelope))
}

/// Registers components, so many at once; all capabilities must be taken.
pub(super) async fn register(components: Vec<Peer>, at_once: usize) -> Vec<Peer> {
    let asks = components.into_iter().map(|peer| (registration(&peer.name), peer));
    each(asks.collect(), at_once, |(ask, mut peer)| async move {
        let answer = peer.must(ask).await;
        assert_taken(&answer);
        peer
    })
    .await
}

/// Registers components that close their connections at once, so many at the same time.
pub(super) async fn register_and_leave(
    components: Vec<Peer>,
    at_once: usize,
) -> Vec<Peer> {
    let asks = components.into_iter().map(|peer| (registration(&peer.name), peer));
    each(asks.collect(), at_once, |(ask, mut peer)| async move {
        let answer = peer.must(ask).await;
        assert_taken(&answer);
        peer.leave();
        peer
    })
    .await
}

/// Checks that a registration was taken whole.
fn assert_taken(answer: &[u8]) {
    let answer = String::from_utf8_lossy(answer);
    assert_eq!(answer.matches("\"ok\"").count(), CAPABILITIES, "{answer}");
}

/// Makes a request with a message.
pub(super) fn post(path: &'static str, wait: u64, body: Bytes) -> Ask {
    Ask { method: Method::POST, path, wait, body }
}

/// Makes a request for what there is to do.
pub(super) fn poll(wait: u64) -> Ask {
    let (method, path) = (Method::GET, path::SHOW_SPECIFICATION);
    Ask { method, path, wait, body: Bytes::new() }
}

/// What is known of all specifications of a scene, by their numbers.
#[derive(Default)]
pub(super) struct Ledger {
    last: AtomicU64,
    arrived: Mutex<BTreeMap<u64, Arrival>>,
    /// Specifications that were handed out under two tokens.
    pub(super) twice: AtomicUsize,
    /// Reports that the supervisor did not want.
    pub(super) unwanted: AtomicUsize,
    /// How often components were told that nobody knows them.
    pub(super) forgotten: AtomicUsize,
    /// How often components were answered.
    pub(super) polls: AtomicUsize,
}

/// The first hand-out of a specification.
#[derive(Clone)]
pub(super) struct Arrival {
    /// When.
    pub(super) at: Instant,
    /// The value in the result.
    pub(super) value: u64,
    token: Token,
    /// What is delivered, however often it is handed out.
    result: Bytes,
}

impl Ledger {
    /// Returns what is known of a specification that has arrived at its component.
    pub(super) fn arrival(&self, number: u64) -> Option<Arrival> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.get(&number).cloned()
    }

    /// Forgets a specification that has ended.
    fn forget(&self, number: u64) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.remove(&number);
    }

    /// Returns the number of another specification.
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes note of a hand-out; returns the result.
    fn handed(&self, specification: &Specification) -> Bytes {
        let at = Instant::now();
        let number = specification.value(NUMBER).and_then(natural);
        let number = number.expect("the specification has it");
        let token = specification.token();
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arrival) = arrived.get(&number) {
            if arrival.token != token {
                self.twice.fetch_add(1, Ordering::Relaxed);
            }
            return arrival.result.clone();
        }
        // No run has the value of another.
        let value = self.last.load(Ordering::Relaxed) * 1_000_003 + number;
        let result = result(specification, value, 1);
        let arrival = Arrival { at, value, token, result: result.clone() };
        arrived.insert(number, arrival);
        result
    }
}

/// Reads a natural number.
fn natural(value: &Value) -> Option<u64> {
    value.to_string().parse().ok()
}

/// Makes the result of a specification, with these rows of one value.
pub(super) fn result(specification: &Specification, value: u64, rows: usize) -> Bytes {
    let now = jiff::Timestamp::now();
    let mut table = Table::new(specification.columns());
    for row in 0..rows {
        let cells = [value, row as u64].map(|cell| Some(Value::Natural(cell)));
        table.push([Some(Value::Time(Moment::At(now)))].into_iter().chain(cells));
    }
    let when = When::between(now, now);
    written(&ResultStatement::of(specification, when, table).into())
}

/// A component at its work.
pub(super) struct Component {
    pub(super) peer: Peer,
    pub(super) ledger: Arc<Ledger>,
    pub(super) whose: Whose,
}

impl Component {
    /// Fetches, promises and delivers until it is stopped.
    pub(super) async fn work(mut self) {
        // After a connection is lost it is worth to know at once that there is another.
        let mut wait = 0;
        loop {
            let Ok((status, body)) = self.peer.ask(poll(wait)).await else {
                wait = 0;
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match status {
                StatusCode::OK => {
                    if wait == 0 {
                        self.ledger.polls.fetch_add(1, Ordering::Relaxed);
                    }
                    wait = LONG;
                    for specification in fetched(&body) {
                        self.run(&specification).await;
                    }
                    self.whose.pause().await;
                }
                StatusCode::NOT_FOUND => {
                    self.ledger.forgotten.fetch_add(1, Ordering::Relaxed);
                    let name = self.peer.name.clone();
                    self.peer.insist(|| registration(&name)).await;
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Promises a result and delivers it.
    async fn run(&mut self, specification: &Specification) {
        let result = self.ledger.handed(specification);
        let receipt = written(&Receipt::of(specification).into());
        for report in [receipt, result] {
            let ask = || post(path::REGISTER_RESULT, 0, report.clone());
            let (status, _) = self.peer.insist(ask).await;
            if status != StatusCode::OK {
                self.ledger.unwanted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Reads the specifications that a component was handed.
pub(super) fn fetched(body: &[u8]) -> Vec<Specification> {
    let answer = json::decode(body, registries()).expect("it is a message");
    let Message::Envelope(envelope) = answer else { return Vec::new() };
    let specifications = envelope.into_messages().into_iter();
    specifications
        .filter_map(|message| match message {
            Message::Specification(specification) => Some(specification),
            _ => None,
        })
        .collect()
}

/// A client.
pub(super) struct Client {
    pub(super) peer: Peer,
    pub(super) ledger: Arc<Ledger>,
    pub(super) whose: Whose,
}

/// A specification that was accepted: the client has a receipt, or its result.
pub(super) struct Accepted {
    pub(super) number: u64,
    token: Token,
    /// What was answered, if that is the end.
    settled: Option<Message>,
}

impl Client {
    /// Asks a component for something, and insists on an answer.
    pub(super) async fn specify(&mut self, component: &str) -> Result<Accepted, Message> {
        let number = self.ledger.next();
        let specification = specification(component, number, self.whose);
        let token = specification.token();
        let body = written(&specification.into());
        match self.say(body, 0).await {
            Message::Receipt(_) => Ok(Accepted { number, token, settled: None }),
            settled @ Message::Result(_) => {
                Ok(Accepted { number, token, settled: Some(settled) })
            }
            refused => Err(refused),
        }
    }

    /// Waits for what comes of a specification.
    pub(super) async fn redeem(&mut self, accepted: &Accepted) -> Message {
        if let Some(settled) = &accepted.settled {
            return settled.clone();
        }
        let redemption = Redemption::token_only("measure", accepted.token.clone());
        let body = written(&redemption.into());
        loop {
            match self.say(body.clone(), LONG).await {
                Message::Receipt(_) => self.whose.pause().await,
                settled => return settled,
            }
        }
    }

    /// Asks again for what came of a specification that has ended.
    pub(super) async fn redeem_again(&mut self, accepted: &Accepted) -> Message {
        let redemption = Redemption::token_only("measure", accepted.token.clone());
        self.say(written(&redemption.into()), 0).await
    }

    /// Has a component measure, and waits for the result, which must be the right one. It is
    /// not kept: there may be very many.
    pub(super) async fn live(&mut self, component: &str) {
        let accepted = self.specify(component).await;
        let accepted = accepted.unwrap_or_else(|refused| panic!("refused: {refused}"));
        let settled = self.redeem(&accepted).await;
        assert!(is_right(&self.ledger, accepted.number, &settled), "{settled}");
        self.ledger.forget(accepted.number);
    }

    /// Says something, and insists on an answer.
    async fn say(&mut self, body: Bytes, wait: u64) -> Message {
        let (_, answer) = self.peer.insist(|| post("/", wait, body.clone())).await;
        json::decode(&answer, registries()).expect("it is a message")
    }
}

/// Says whether a message is the result of a specification: the number that was asked for,
/// and the value that the component has delivered.
pub(super) fn is_right(ledger: &Ledger, number: u64, message: &Message) -> bool {
    let Message::Result(result) = message else { return false };
    let arrival = ledger.arrival(number);
    let is_its = result.value(NUMBER).and_then(natural) == Some(number);
    let column = result.table().column(VALUE);
    let value = column.and_then(|column| column.value(0)).as_ref().and_then(natural);
    is_its
        && result.table().rows() == 1
        && arrival.is_some_and(|arrival| value == Some(arrival.value))
}
