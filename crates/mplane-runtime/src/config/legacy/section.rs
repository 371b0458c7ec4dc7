//! Sections of the reference's configurations: what is taken out of them means something
//! here, what is left over is told.

use serde_json::{Map, Value};

use super::TranslateError;

/// A section, and where it stands.
#[derive(Debug)]
pub(super) struct Section {
    place: String,
    values: Map<String, Value>,
}

impl Section {
    /// Makes a section of what stands at a place, the empty one being the whole file.
    pub(super) const fn new(place: String, values: Map<String, Value>) -> Self {
        Self { place, values }
    }

    /// Returns the place of a key, as errors and notes name it.
    pub(super) fn place(&self, key: &str) -> String {
        if self.place.is_empty() { key.into() } else { format!("{}.{key}", self.place) }
    }

    /// Says whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Returns the keys that are left.
    pub(super) fn keys(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    /// Takes a text or a number; an empty text is none.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, TranslateError> {
        let text = match self.values.remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(self.wrong(key, "it is a text")),
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Takes a text that must be there.
    pub(super) fn required(
        &mut self,
        key: &str,
        remedy: &'static str,
    ) -> Result<String, TranslateError> {
        let place = self.place(key);
        self.text(key)?.ok_or(TranslateError::Missing { place, remedy })
    }

    /// Takes a list: of JSON, or of texts with commas between them.
    pub(super) fn list(&mut self, key: &str) -> Result<Vec<String>, TranslateError> {
        match self.values.remove(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(text
                .split([',', '\n'])
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect()),
            Some(Value::Array(values)) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => Ok(text),
                    _ => Err(self.wrong(key, "it is a list of texts")),
                })
                .collect(),
            Some(_) => Err(self.wrong(key, "it is a list of texts")),
        }
    }

    /// Takes a section within this one.
    pub(super) fn section(&mut self, key: &str) -> Result<Option<Self>, TranslateError> {
        let place = self.place(key);
        match self.values.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self { place, values })),
            Some(_) => Err(self.wrong(key, "it is a section")),
        }
    }

    /// Takes all that is left as texts.
    pub(super) fn texts(mut self) -> Result<Vec<(String, String)>, TranslateError> {
        let mut texts = Vec::new();
        for key in self.keys() {
            if let Some(text) = self.text(&key)? {
                texts.push((key, text));
            }
        }
        Ok(texts)
    }

    /// Tells what is left: it has no meaning here.
    pub(super) fn leave(self, notes: &mut Vec<String>) {
        for key in self.values.keys() {
            notes.push(format!("{} has no meaning here and is ignored", self.place(key)));
        }
    }

    /// Says that a value is of another kind than it should be.
    fn wrong(&self, key: &str, expected: &'static str) -> TranslateError {
        TranslateError::Value { place: self.place(key), problem: expected.into() }
    }
}
