//! What programs of the reference were recorded to say to each other, said again to ours.
//!
//! `vectors/exchanges` holds the records. Where they asked, what they asked is sent to our
//! programs as it was, and our answers are compared with the recorded ones: same status and
//! content type, same kind of message, and in it the same wherever the exchange determines
//! it. Where they answered, our programs get the recorded answers, and what ours ask is
//! compared. What is decided otherwise here stands with the decision in
//! `vectors/differences-exchanges-*.json`, or as a [`replay::Decision`] if it is seen in
//! many answers.

mod caller;
mod client;
mod component;
mod essence;
mod initiator;
mod peer;
mod replay;
mod supervisor;
