//! What two constraints have in common, and whether one allows all that another does.
//!
//! Composition merges the capabilities of several components, and policies narrow what a
//! peer may ask for: both need to compare constraints without trying values.

use super::{Constraint, comparable, first, is_member, last, not_above};
use crate::address::{Address, networks_between};
use crate::primitive::Value;

impl Constraint {
    /// Says whether every value that `other` allows is allowed here too.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Each(each), Self::Each(other)) => each.contains(other),
            // One value is a list of one.
            (Self::Each(each), other) => each.contains(other),
            (_, Self::Each(_)) => false,
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (_, Self::Set(members)) => {
                members.iter().all(|member| self.is_met_by(Some(member)))
            }
            (Self::Set(members), Self::Range { low, high }) => {
                covered(members, low, high)
            }
            (
                Self::Range { low, high },
                Self::Range { low: other_low, high: other_high },
            ) => {
                comparable(low, other_low)
                    && not_above(low, other_low)
                    && not_above(other_high, high)
            }
        }
    }

    /// Returns the constraint that allows what both allow; `None` if nothing is.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Each(one), Self::Each(other)) => {
                one.intersect(other).map(|both| Self::Each(Box::new(both)))
            }
            (Self::Each(each), single) | (single, Self::Each(each)) => {
                each.intersect(single)
            }
            (Self::Any, one) | (one, Self::Any) => Some(one.clone()),
            (Self::Set(one), Self::Set(other)) => {
                let both = one.iter().filter(|value| is_member(other, value));
                let either = other.iter().filter(|value| is_member(one, value));
                Self::one_of(both.chain(either).cloned().collect())
            }
            (Self::Set(members), Self::Range { low, high })
            | (Self::Range { low, high }, Self::Set(members)) => {
                clipped(members, low, high)
            }
            (
                Self::Range { low, high },
                Self::Range { low: other_low, high: other_high },
            ) => between(low.max(other_low), high.min(other_high)),
        }
    }
}

/// Returns the range between two values, if they compare and there is anything.
fn between(low: &Value, high: &Value) -> Option<Constraint> {
    (comparable(low, high) && not_above(low, high))
        .then(|| Constraint::Range { low: low.clone(), high: high.clone() })
}

/// Returns the members of a set within a range. A network that reaches beyond it is
/// replaced by the networks that make up the rest or, if nothing else is left, by a range.
fn clipped(members: &[Value], low: &Value, high: &Value) -> Option<Constraint> {
    let mut inside = Vec::new();
    let mut parts = Vec::new();
    for member in members.iter().filter(|member| comparable(low, member)) {
        let (begin, end) = (first(member), last(member));
        let whole = not_above(low, &begin) && not_above(&end, high);
        if whole {
            inside.push(member.clone());
        } else if let Some(part) = between(low.max(&begin), high.min(&end)) {
            parts.push(part);
        }
    }
    if inside.is_empty() && parts.len() == 1 {
        return parts.pop();
    }
    for part in &parts {
        if let Constraint::Range {
            low: Value::Address(low),
            high: Value::Address(high),
        } = part
        {
            let networks = networks_between(low.ip(), high.ip());
            inside.extend(networks.into_iter().map(Value::Address));
        }
    }
    Constraint::one_of(inside)
}

/// Says whether the members of a set, put together, are all that lies from `low` to
/// `high`, of networks from the first to the last host.
pub(super) fn covered(members: &[Value], low: &Value, high: &Value) -> bool {
    let (mut next, high) = (first(low), last(high));
    // Each turn passes at least one member.
    loop {
        let after = members.partition_point(|member| *member <= next);
        let before = after.checked_sub(1).and_then(|index| members.get(index));
        let Some(member) = before.filter(|member| {
            comparable(member, &next) && not_above(&next, &last(member))
        }) else {
            return false;
        };
        let end = last(member);
        if not_above(&high, &end) {
            return true;
        }
        match successor(&end) {
            Some(successor) => next = successor,
            None => return false,
        }
    }
}

/// Returns the next value after one, of types that have one.
fn successor(value: &Value) -> Option<Value> {
    match value {
        Value::Natural(number) => number.checked_add(1).map(Value::Natural),
        Value::Bool(false) => Some(Value::Bool(true)),
        Value::Address(address) => successor_host(address).map(Value::Address),
        _ => None,
    }
}

/// Returns the host after one.
fn successor_host(host: &Address) -> Option<Address> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let next = match host.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits().checked_add(1)?)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits().checked_add(1)?)),
    };
    Some(Address::host(next))
}
