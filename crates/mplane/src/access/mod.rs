//! Who a peer is, and what it may do.
//!
//! The decisions are pure: identity in, permission out. Denied is what is not allowed. The
//! class of a peer says what kind of thing it may do ([`permit`]), a [`Policy`] with which
//! capabilities.
//!
//! Source: protocol notes, section 7 (identity); mPlane protocol specification,
//! "Access Control".

mod identity;
mod policy;

pub use identity::{Class, Identity};
pub use policy::{CapabilityName, IdentityRule, Policy, PolicyError, Withheld};

/// Something a peer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Offer capabilities, fetch specifications, deliver results.
    Serve,
    /// See capabilities, send specifications, redeem and interrupt one's own.
    Use,
}

/// Says whether a peer of this class may do this, and if not, who may.
///
/// A peer without certificate may do both: there is one only where plain HTTP was
/// configured explicitly, which would be of no use otherwise. What it may use there is up
/// to the [`Policy`].
pub fn permit(identity: &Identity, act: Act) -> Result<(), Denied> {
    let class = identity.class();
    let is_allowed = match act {
        _ if class == Class::Unauthenticated => true,
        Act::Serve => matches!(class, Class::Component | Class::Supervisor),
        Act::Use => matches!(class, Class::Client | Class::Supervisor),
    };
    if is_allowed {
        Ok(())
    } else {
        Err(Denied { identity: identity.to_string(), class, act })
    }
}

/// A peer may not do what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{identity} is {class} and may not {}; the organizational unit of its certificate \
     must be {} or Supervisors",
    match act { Act::Serve => "offer capabilities", Act::Use => "use capabilities" },
    match act { Act::Serve => "Components", Act::Use => "Clients" },
)]
pub struct Denied {
    identity: String,
    class: Class,
    act: Act,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denies_what_is_not_allowed() {
        let of =
            |unit: &str| Identity::new(["Demo", unit, "x"].map(Into::into), Some(unit));
        assert!(permit(&of("Components"), Act::Serve).is_ok());
        assert!(permit(&of("Supervisors"), Act::Serve).is_ok());
        assert!(permit(&of("Clients"), Act::Use).is_ok());
        assert_eq!(
            permit(&of("Clients"), Act::Serve).unwrap_err().to_string(),
            "Demo.Clients.x is a client and may not offer capabilities; the \
             organizational unit of its certificate must be Components or Supervisors"
        );
        assert!(permit(&of("Sales"), Act::Use).is_err());
        let without_unit = Identity::new(["Demo".into()], None);
        assert!(permit(&without_unit, Act::Serve).is_err());
    }

    #[test]
    fn who_could_show_no_certificate_is_of_no_class_and_may_do_both() {
        let nobody = Identity::unauthenticated();
        assert!(!nobody.is_authenticated());
        assert_eq!(nobody.class(), Class::Unauthenticated);
        assert_eq!(nobody.to_string(), "unauthenticated");
        assert!(permit(&nobody, Act::Use).is_ok() && permit(&nobody, Act::Serve).is_ok());
    }
}
