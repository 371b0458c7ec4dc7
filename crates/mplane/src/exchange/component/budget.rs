//! What a component takes on: the places that runs share, and how often and how long a
//! service may measure.
//!
//! Runs of a class wait for each other: an exclusive one, such as a measurement of
//! throughput, runs while no other exclusive or shared one does; unlimited ones, such as
//! pings, take no part. Who came first starts first, so that an exclusive run is not kept
//! waiting by shared ones that come after it.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::Timestamp;

use super::{ComponentExchange, JobId, JobState, Outcome, ServiceIndex};
use crate::message::Capability;
use crate::when::{When, display_duration};

/// What a service may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// With what its runs share the component.
    pub concurrency: Concurrency,
    /// What becomes of a run for which there is no place.
    pub when_busy: WhenBusy,
    /// The shortest period, of a repeat and of the samples within a measurement. It
    /// becomes the period of a capability that has a shorter one.
    pub min_period: Option<Duration>,
    /// How long one measurement lasts at most.
    pub max_duration: Option<Duration>,
}

/// The class of a service: with what its runs share the component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// With everything.
    #[default]
    Unlimited,
    /// With so many of its own at most, and with those of other services, but with no
    /// exclusive one.
    Shared(NonZeroUsize),
    /// With unlimited ones only.
    Exclusive,
}

/// What becomes of a run for which there is no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenBusy {
    /// It starts when there is one.
    #[default]
    Wait,
    /// It ends with an exception.
    Refuse,
}

impl Budget {
    /// Has a capability say what the budget allows.
    pub fn narrow(&self, capability: &mut Capability) {
        let when = capability.when();
        if let Some(least) = self.min_period
            && when.period().is_some_and(|period| period < least)
        {
            let when = when.clone().with_period(Some(least));
            capability.set_when(when);
        }
    }

    /// Checks that a scope asks for no more than this; if it does, says why.
    pub(super) fn check(&self, when: &When, now: Timestamp) -> Result<(), String> {
        if let Some(least) = self.min_period
            && let Some(period) = when.shortest_period(now)
            && period < least
        {
            return Err(format!(
                "the temporal scope {when} has a period of {}, the shortest here is {}",
                display_duration(period),
                display_duration(least)
            ));
        }
        let Some(most) = self.max_duration else { return Ok(()) };
        let asked = match when.measurement_duration(now) {
            Some(asked) if asked <= most => return Ok(()),
            Some(asked) => format!("lasts {}", display_duration(asked)),
            None => "has no end".to_owned(),
        };
        let most = display_duration(most);
        Err(format!(
            "the temporal scope {when} {asked}, a measurement lasts at most {most} here"
        ))
    }
}

/// The places of runs, and what waits for one.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Who has a place: one that is shared with others of a service, or all of them.
    taken: BTreeMap<JobId, Place>,
    /// How many places of a service are taken.
    shared: BTreeMap<ServiceIndex, usize>,
    /// Who waits, in the order of coming.
    waiting: VecDeque<(JobId, Place)>,
}

/// What a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Shared { service: ServiceIndex, most: NonZeroUsize },
    All,
}

impl Place {
    /// Returns what a run of a class needs; `None` for nothing.
    const fn of(service: ServiceIndex, concurrency: Concurrency) -> Option<Self> {
        match concurrency {
            Concurrency::Unlimited => None,
            Concurrency::Shared(most) => Some(Self::Shared { service, most }),
            Concurrency::Exclusive => Some(Self::All),
        }
    }
}

impl Places {
    /// Says whether there is room for a run.
    fn has_room(&self, place: Place) -> bool {
        match place {
            Place::All => self.taken.is_empty(),
            Place::Shared { service, most } => {
                let taken = self.shared.get(&service).copied().unwrap_or_default();
                taken < most.get()
                    && self.taken.values().all(|taken| *taken != Place::All)
            }
        }
    }

    /// Says whether a run that comes now may start: none that came before would be passed
    /// over for ever.
    fn may_start(&self, place: Place) -> bool {
        self.has_room(place) && self.waiting.iter().all(|(_, other)| *other != Place::All)
    }

    /// Gives a run its place.
    fn take(&mut self, job: JobId, place: Place) {
        if let Place::Shared { service, .. } = place {
            *self.shared.entry(service).or_default() += 1;
        }
        self.taken.insert(job, place);
    }

    /// Takes the place of a run back, or its wish for one; says whether it had one.
    fn release(&mut self, job: JobId) -> bool {
        let Some(place) = self.taken.remove(&job) else {
            self.waiting.retain(|(waiting, _)| *waiting != job);
            return false;
        };
        if let Place::Shared { service, .. } = place
            && let Some(taken) = self.shared.get_mut(&service)
        {
            *taken -= 1;
            if *taken == 0 {
                self.shared.remove(&service);
            }
        }
        true
    }

    /// Takes out the first that waits and may start.
    fn next(&mut self) -> Option<JobId> {
        for (index, (job, place)) in self.waiting.iter().copied().enumerate() {
            if self.has_room(place) {
                self.waiting.remove(index);
                self.take(job, place);
                return Some(job);
            }
            if place == Place::All {
                return None;
            }
        }
        None
    }
}

impl ComponentExchange {
    /// Says whether a run of a service would have to wait for another one.
    pub(super) fn is_busy(&self, service: ServiceIndex) -> bool {
        let budget = self.budget(service);
        Place::of(service, budget.concurrency)
            .is_some_and(|place| !self.places.may_start(place))
    }

    /// Gives a job that is due a place; says whether it has one. If not, it waits, or has
    /// ended.
    pub(super) fn take_place(
        &mut self,
        id: JobId,
        service: ServiceIndex,
        due: Timestamp,
        now: Timestamp,
    ) -> bool {
        let budget = self.budget(service);
        let Some(place) = Place::of(service, budget.concurrency) else { return true };
        if self.places.may_start(place) {
            self.places.take(id, place);
            return true;
        }
        match budget.when_busy {
            WhenBusy::Refuse => {
                self.job_ended(id, Outcome::Failed(busy(budget.concurrency)), now);
            }
            WhenBusy::Wait => {
                self.places.waiting.push_back((id, place));
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.state = JobState::Queued { due };
                    // A scope that is absolute does not wait with it.
                    let limit = job.specification.when().is_definite()
                        && job.specification.is_schedulable();
                    let limit = job.limit().filter(|_| limit);
                    self.look_again(id, limit);
                }
            }
        }
        false
    }

    /// Frees the place of a job, for those that wait.
    pub(super) fn free_place(&mut self, id: JobId, now: Timestamp) {
        if !self.places.release(id) && self.places.waiting.is_empty() {
            return;
        }
        while let Some(next) = self.places.next() {
            if let Some(&JobState::Queued { due }) =
                self.jobs.get(&next).map(|job| &job.state)
            {
                self.run(next, due, now);
            } else {
                self.places.release(next);
            }
        }
    }
}

/// Says that there is no place for a run.
pub(super) fn busy(concurrency: Concurrency) -> String {
    let why = match concurrency {
        Concurrency::Exclusive => {
            "it runs alone, and another measurement runs".to_owned()
        }
        Concurrency::Shared(most) => format!("at most {most} of its kind run at once"),
        Concurrency::Unlimited => String::new(),
    };
    format!("this component is busy: {why}; try again later")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64) -> JobId {
        JobId::from_number(number)
    }

    fn shared(service: ServiceIndex) -> Place {
        Place::Shared { service, most: NonZeroUsize::new(2).unwrap() }
    }

    #[test]
    fn shared_places_are_counted_by_service() {
        let mut places = Places::default();
        places.take(job(1), shared(7));
        assert!(places.may_start(shared(7)));
        places.take(job(2), shared(7));
        assert!(!places.may_start(shared(7)));
        assert!(places.may_start(shared(8)));
        assert!(places.release(job(1)));
        assert!(places.may_start(shared(7)));
    }

    #[test]
    fn who_needs_all_waits_for_all_and_is_not_passed_over() {
        let mut places = Places::default();
        places.take(job(1), shared(7));
        assert!(!places.may_start(Place::All));
        places.waiting.push_back((job(2), Place::All));
        assert!(!places.may_start(shared(8)), "job 2 came first");
        places.waiting.push_back((job(3), shared(8)));
        assert_eq!(places.next(), None);
        places.release(job(1));
        assert_eq!(places.next(), Some(job(2)));
        assert_eq!(places.next(), None);
        places.release(job(2));
        assert_eq!(places.next(), Some(job(3)));
        places.release(job(3));
        assert!(places.taken.is_empty() && places.shared.is_empty());
    }
}
