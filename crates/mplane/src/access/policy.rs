//! Roles: which identities may do something with which capability.
//!
//! A policy comes on top of the class of a peer ([`permit`](super::permit)): the class
//! says what kind of thing it may do, the policy with which capabilities. It looks at
//! capabilities, never at what a peer calls them.
//!
//! Source: protocol notes, section 7; mPlane protocol specification, "Access Control".
//!
//! *Differences*: the reference takes a rule for every capability whose label contains the
//! rule's text. Here a rule is for one label or token, to the letter. The reference
//! compares identities as text with dots; here the lists of names are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::Identity;
use crate::message::Capability;
use crate::token::Token;

/// How a rule names a peer without certificate: our word, and the reference's.
const UNAUTHENTICATED: [&str; 2] =
    ["unauthenticated", "Identity.Unauthenticated.Default"];

/// Who may do something with which capability. The default is everybody with all, as far
/// as the class of the peer permits it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Option<Rules>,
}

/// The rules of a policy that has some. What they do not list is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    /// The roles of each identity, by its names; of who has no certificate, by none.
    roles: BTreeMap<Vec<Box<str>>, BTreeSet<Box<str>>>,
    /// The roles that may use a capability, by its label or token.
    authorizations: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    /// Whether every component may offer everything.
    is_offering_open: bool,
}

/// How a rule names an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityRule {
    /// As text: names joined by dots, none of which contains a dot itself.
    Text(String),
    /// As the list of its names.
    Names(Vec<String>),
}

/// What a policy knows a capability by, kept after the capability itself is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityName {
    label: Option<Box<str>>,
    token: Token,
}

impl Policy {
    /// Makes a policy that denies what it does not list: `roles` says who has a role,
    /// `authorizations` which roles may use a label or token.
    pub fn new<'a>(
        roles: impl IntoIterator<Item = (&'a str, &'a [IdentityRule])>,
        authorizations: impl IntoIterator<Item = (&'a str, &'a [String])>,
    ) -> Result<Self, PolicyError> {
        let mut known = BTreeSet::new();
        let mut by_identity: BTreeMap<_, BTreeSet<Box<str>>> = BTreeMap::new();
        let (mut texts, mut lists) = (BTreeMap::new(), BTreeSet::new());
        for (role, rules) in roles {
            known.insert(role);
            for rule in rules {
                let names = rule.names(role)?;
                match rule {
                    IdentityRule::Text(text) => {
                        texts.insert(text.clone(), role);
                    }
                    IdentityRule::Names(names) => {
                        let has_dot = names.iter().any(|name| name.contains('.'));
                        lists.extend(has_dot.then(|| names.join(".")));
                    }
                }
                by_identity.entry(names).or_default().insert(role.into());
            }
        }
        // Somebody here is written with dots inside a name: the text may mean either.
        if let Some((text, role)) =
            texts.into_iter().find(|(text, _)| lists.contains(text))
        {
            return Err(PolicyError::Ambiguous { role: role.into(), text });
        }
        let mut allowed: BTreeMap<Box<str>, BTreeSet<Box<str>>> = BTreeMap::new();
        for (name, listed) in authorizations {
            if let Some(role) = listed.iter().find(|role| !known.contains(role.as_str()))
            {
                return Err(PolicyError::Role { name: name.into(), role: role.clone() });
            }
            let listed = listed.iter().map(|role| role.as_str().into());
            allowed.entry(name.into()).or_default().extend(listed);
        }
        let rules = Rules {
            roles: by_identity,
            authorizations: allowed,
            is_offering_open: false,
        };
        Ok(Self { rules: Some(rules) })
    }

    /// Lets every component offer everything: the reference's rules are for those who use
    /// capabilities only.
    #[must_use]
    pub fn with_open_offering(mut self) -> Self {
        if let Some(rules) = &mut self.rules {
            rules.is_offering_open = true;
        }
        self
    }

    /// Says whether it denies anything.
    pub const fn is_restricting(&self) -> bool {
        self.rules.is_some()
    }

    /// Says whether a component may offer a capability to others; if not, why.
    pub fn permit_offer(
        &self,
        component: &Identity,
        capability: &CapabilityName,
    ) -> Result<(), Withheld> {
        if self.rules.as_ref().is_some_and(|rules| rules.is_offering_open) {
            return Ok(());
        }
        self.permit(component, capability)
    }

    /// Says whether an identity may see and use a capability of a component; if not, why.
    /// Besides the rules for its label or token there may be one for `LABEL@COMPONENT`.
    pub fn permit_of(
        &self,
        identity: &Identity,
        capability: &CapabilityName,
        component: &Identity,
    ) -> Result<(), Withheld> {
        if self.rules.is_none() {
            return Ok(());
        }
        let label = capability.label.as_deref().unwrap_or_default();
        self.permit_named(identity, capability, Some(&format!("{label}@{component}")))
    }

    /// Says whether an identity may see and use a capability; if not, why.
    pub fn permit(
        &self,
        identity: &Identity,
        capability: &CapabilityName,
    ) -> Result<(), Withheld> {
        self.permit_named(identity, capability, None)
    }

    /// Says whether an identity may see and use a capability by one of its names.
    fn permit_named(
        &self,
        identity: &Identity,
        capability: &CapabilityName,
        of_component: Option<&str>,
    ) -> Result<(), Withheld> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let names: Vec<Box<str>> = identity.names().map(Into::into).collect();
        let roles = rules.roles.get(&names);
        let by_label = capability.label.as_ref().map(AsRef::as_ref);
        let allowed = [by_label, Some(capability.token.as_str()), of_component];
        let mut allowed =
            allowed.into_iter().flatten().filter_map(|n| rules.authorizations.get(n));
        if roles.is_some_and(|roles| allowed.any(|allowed| !allowed.is_disjoint(roles))) {
            return Ok(());
        }
        // The only identity of which the text with dots does not say who it is.
        let is_misread = roles.is_none()
            && names.iter().any(|name| name.contains('.'))
            && rules.roles.keys().any(|rule| rule.join(".") == names.join("."));
        Err(Withheld {
            identity: identity.to_string(),
            capability: capability.to_string(),
            is_misread,
        })
    }
}

impl IdentityRule {
    /// Returns the names that an identity must have.
    fn names(&self, role: &str) -> Result<Vec<Box<str>>, PolicyError> {
        let (text, names): (String, Vec<Box<str>>) = match self {
            Self::Text(text) if UNAUTHENTICATED.contains(&text.as_str()) => {
                return Ok(Vec::new());
            }
            Self::Text(text) => (text.clone(), text.split('.').map(Into::into).collect()),
            Self::Names(names) => {
                (names.join("."), names.iter().map(|name| name.as_str().into()).collect())
            }
        };
        if names.is_empty() || names.iter().any(|name| name.is_empty()) {
            return Err(PolicyError::Name { role: role.into(), text });
        }
        Ok(names)
    }
}

impl CapabilityName {
    /// Makes what a capability of this label and token is known by.
    pub fn new(label: Option<&str>, token: Token) -> Self {
        Self { label: label.map(Into::into), token }
    }

    /// Returns the label.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns the token.
    pub const fn token(&self) -> &Token {
        &self.token
    }

    /// Returns what a capability is known by.
    pub fn of(capability: &Capability) -> Self {
        Self { label: capability.label().map(Into::into), token: capability.token() }
    }
}

impl Display for CapabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label.as_deref().unwrap_or_else(|| self.token.as_str()))
    }
}

/// A capability that the policy withholds from a peer. It is for logs: the peer is not
/// told that the capability exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{identity} has no role that [access.authorizations] lists for {capability}{}",
    if *is_misread {
        "; [access.roles] has its text, but one of its names contains a dot: write the \
         list of its names"
    } else {
        ""
    },
)]
pub struct Withheld {
    identity: String,
    capability: String,
    is_misread: bool,
}

/// Rules that make no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// An identity with an empty name.
    #[error(
        "role {role} has an identity with an empty name, {text:?}; write all names of the \
         certificate's subject, in its order"
    )]
    Name {
        /// The role.
        role: String,
        /// The identity.
        text: String,
    },
    /// A text that may mean two identities.
    #[error(
        "{text:?} in role {role} may mean two identities, because another rule has it with \
         a dot inside a name; write it as the list of its names"
    )]
    Ambiguous {
        /// The role.
        role: String,
        /// The identity.
        text: String,
    },
    /// A role that is not defined.
    #[error(
        "{name} is for role {role}, which [access.roles] does not define; add it there"
    )]
    Role {
        /// The label or token.
        name: String,
        /// The role.
        role: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Statement;

    fn identity(names: &[&str]) -> Identity {
        let unit = names.get(1).copied();
        Identity::new(names.iter().map(|name| (*name).into()), unit)
    }

    fn capability(label: Option<&str>) -> CapabilityName {
        // The label is no part of a token: another scope makes another.
        let statement = match label {
            Some(label) => {
                Statement::measure("now ... future / 1s".parse().unwrap()).labelled(label)
            }
            None => Statement::measure("now ... future / 2s".parse().unwrap()),
        };
        CapabilityName::of(&Capability::new(statement))
    }

    fn text(text: &str) -> IdentityRule {
        IdentityRule::Text(text.into())
    }

    fn list(names: &[&str]) -> IdentityRule {
        IdentityRule::Names(names.iter().map(|name| (*name).into()).collect())
    }

    /// Makes a policy in which `ping` and a capability without label are for admins, and
    /// `open` is for guests too.
    fn policy(admins: &[IdentityRule], guests: &[IdentityRule]) -> Policy {
        let admin = ["admin".to_owned()];
        let both = ["admin".to_owned(), "guest".to_owned()];
        let nameless = capability(None).to_string();
        Policy::new(
            [("admin", admins), ("guest", guests)],
            [("ping", &admin[..]), (&nameless, &admin[..]), ("open", &both[..])],
        )
        .unwrap()
    }

    #[test]
    fn without_rules_everybody_may_use_everything() {
        let policy = Policy::default();
        assert!(!policy.is_restricting());
        let nobody = Identity::unauthenticated();
        assert_eq!(policy.permit(&nobody, &capability(Some("ping"))), Ok(()));
    }

    #[test]
    fn denies_what_no_role_of_the_identity_lists() {
        let policy = policy(&[text("Demo.Clients.ops")], &[text("unauthenticated")]);
        let (ops, other) =
            (identity(&["Demo", "Clients", "ops"]), identity(&["Demo", "Clients", "x"]));
        let may = |who: &Identity, label| policy.permit(who, &capability(label)).is_ok();
        assert!(may(&ops, Some("ping")) && may(&ops, Some("open")) && may(&ops, None));
        assert!(!may(&ops, Some("unlisted")));
        assert!(!may(&other, Some("open")));
        let nobody = Identity::unauthenticated();
        assert!(may(&nobody, Some("open")) && !may(&nobody, Some("ping")));
        assert_eq!(
            policy.permit(&other, &capability(Some("ping"))).unwrap_err().to_string(),
            "Demo.Clients.x has no role that [access.authorizations] lists for ping"
        );
    }

    #[test]
    fn offering_can_be_open_while_using_is_not() {
        let policy = policy(&[], &[]);
        let (probe, ping) =
            (identity(&["Demo", "Components", "p"]), capability(Some("ping")));
        assert!(policy.permit_offer(&probe, &ping).is_err());
        let policy = policy.with_open_offering();
        assert!(policy.permit_offer(&probe, &ping).is_ok());
        assert!(policy.permit(&probe, &ping).is_err());
        assert!(!Policy::default().with_open_offering().is_restricting());
    }

    #[test]
    fn a_label_is_compared_to_the_letter() {
        let policy = policy(&[text("Demo.Clients.ops")], &[]);
        let ops = identity(&["Demo", "Clients", "ops"]);
        for label in ["ping-average", "pin", "Ping", "my-ping", "ping-0", ""] {
            assert!(policy.permit(&ops, &capability(Some(label))).is_err(), "{label}");
        }
    }

    #[test]
    fn names_are_compared_not_their_text() {
        let split = identity(&["Demo", "Clients", "ops", "2"]);
        let dotted = identity(&["Demo", "Clients", "ops.2"]);
        let ping = capability(Some("ping"));
        let by_text = policy(&[text("Demo.Clients.ops.2")], &[]);
        assert!(by_text.permit(&split, &ping).is_ok());
        let refusal = by_text.permit(&dotted, &ping).unwrap_err().to_string();
        assert!(refusal.ends_with("contains a dot: write the list of its names"));
        let by_list = policy(&[list(&["Demo", "Clients", "ops.2"])], &[]);
        assert!(by_list.permit(&dotted, &ping).is_ok());
        assert!(by_list.permit(&split, &ping).is_err());
    }

    #[test]
    fn the_organizational_unit_is_not_compared_twice() {
        let names = ["Demo", "Clients", "ops"].map(Into::into);
        let ping = capability(Some("ping"));
        let policy = policy(&[text("Demo.Clients.ops")], &[]);
        assert!(policy.permit(&Identity::new(names, None), &ping).is_ok());
    }

    #[test]
    fn rules_that_make_no_policy_are_told_with_the_remedy() {
        let refusal = |rules: &[IdentityRule], roles: &[String]| {
            Policy::new([("admin", rules)], [("ping", roles)]).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(&[text("a.b.c"), list(&["a", "b.c"])], &[]),
            "\"a.b.c\" in role admin may mean two identities, because another rule has it \
             with a dot inside a name; write it as the list of its names"
        );
        for rule in [text(""), text("a..b"), list(&[]), list(&["a", ""])] {
            let refusal = refusal(&[rule], &[]);
            assert!(refusal.contains("an identity with an empty name"), "{refusal}");
        }
        assert_eq!(
            refusal(&[], &["amdin".into()]),
            "ping is for role amdin, which [access.roles] does not define; add it there"
        );
    }

    #[test]
    fn lists_without_dots_may_stand_beside_their_text() {
        let rules = [text("a.b"), list(&["a", "b"])];
        assert!(Policy::new([("admin", &rules[..])], []).is_ok());
    }
}
