//! What is written down of components: who they are, what they offer and have offered, and when
//! they were last heard of.

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::features::Features;
use mplane::message::Capability;
use mplane::token::Token;
use mplane_runtime::stored::{identity_text, message_text};
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};
use crate::directory::{About, Dialect};

impl Store {
    /// Writes down that a component offers a capability; one with the same token or label
    /// is replaced.
    pub async fn register(
        &self,
        from: &Identity,
        capability: &Capability,
        features: Features,
        dialect: Dialect,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let from = identity_text(from);
        let (token, label) =
            (capability.token(), capability.label().map(ToOwned::to_owned));
        let json = message_text(&capability.clone().into());
        let features = features.to_string();
        let now = now.as_microsecond();
        let written = self.control.call(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO component
                     (identity, dialect, features, first_seen_us, last_seen_us)
                     VALUES (?1, ?2, ?3, ?4, ?4)
                     ON CONFLICT DO UPDATE SET dialect = ?2, features = ?3, last_seen_us = ?4",
                )?
                .execute(params![from, dialect.word(), features, now])?;
            let same: Option<String> = connection
                .prepare_cached(
                    "SELECT json FROM capability
                     WHERE component = ?1 AND token = ?2 AND until_us IS NULL",
                )?
                .query_row(params![from, token.as_str()], |row| row.get(0))
                .optional()?;
            if same.as_deref() == Some(&*json) {
                return Ok(());
            }
            // Each by its index: a supervisor may offer very many.
            for (column, value) in
                [("token", Some(token.as_str())), ("json ->> 'label'", label.as_deref())]
            {
                connection
                    .prepare_cached(&format!(
                        "UPDATE capability SET until_us = ?3, gone = 'replaced'
                         WHERE component = ?1 AND until_us IS NULL AND {column} = ?2"
                    ))?
                    .execute(params![from, value, now])?;
            }
            connection
                .prepare_cached(
                    "INSERT INTO capability (component, token, json, since_us)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![from, token.as_str(), json, now])
                .map(drop)
        });
        Ok(written.await?)
    }

    /// Writes down what else is known of a component.
    pub async fn describe(
        &self,
        from: &Identity,
        about: About,
    ) -> Result<(), StoreError> {
        let from = identity_text(from);
        let written = self.control.call(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE component SET address = ?2, version = ?3, clock_ahead_s = ?4
                     WHERE identity = ?1",
                )?
                .execute(params![from, about.address, about.version, about.clock_ahead_s])
                .map(drop)
        });
        Ok(written.await?)
    }

    /// Writes down that a component does not offer a capability any more, and why.
    pub async fn withdraw(
        &self,
        from: &Identity,
        token: &Token,
        why: &'static str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (from, token) = (identity_text(from), token.clone());
        let written = self.control.call(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE capability SET until_us = ?3, gone = ?4
                     WHERE component = ?1 AND token = ?2 AND until_us IS NULL",
                )?
                .execute(params![from, token.as_str(), now.as_microsecond(), why])
                .map(drop)
        });
        Ok(written.await?)
    }

    /// Writes down that components are forgotten: they do not offer anything any more.
    pub async fn forgotten(
        &self,
        components: Vec<Identity>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let written = self.control.call(move |connection| {
            let mut update = connection.prepare_cached(
                "UPDATE capability SET until_us = ?2, gone = 'the component is gone'
                 WHERE component = ?1 AND until_us IS NULL",
            )?;
            for component in components {
                let component = identity_text(&component);
                update.execute(params![component, now.as_microsecond()])?;
            }
            Ok(())
        });
        Ok(written.await?)
    }

    /// Writes down when components were last heard of.
    pub async fn seen(&self, seen: Vec<(Identity, Timestamp)>) -> Result<(), StoreError> {
        let written = self.control.call(move |connection| {
            let mut update = connection.prepare_cached(
                "UPDATE component SET last_seen_us = max(last_seen_us, ?2)
                 WHERE identity = ?1",
            )?;
            for (identity, at) in seen {
                update.execute(params![identity_text(&identity), at.as_microsecond()])?;
            }
            Ok(())
        });
        Ok(written.await?)
    }
}
