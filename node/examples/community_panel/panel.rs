//! The text that all edit: a conflict-free replicated document (Yjs' algorithm, crate `yrs`), seen as lines. Copies that have the
//! same updates are equal, in whatever order these came.

use serde::{Deserialize, Serialize};
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, GetString, ReadTxn, StateVector, Text, TextRef, Transact, Update};

/// The longest text, in bytes: edits that would go past it are refused.
pub(crate) const TEXT_BYTES_MAX: usize = 64 << 10;

/// One copy of the text.
pub(crate) struct Panel {
    document: Doc,
    text: TextRef,
}

/// What a copy has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    state: Vec<u8>,
    digest: u64,
}

/// A change of the text by its user. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Append(String),
    Insert(usize, String),
    Replace(usize, String),
    Delete(usize),
}

impl Panel {
    pub(crate) fn new() -> Panel {
        let document = Doc::new();
        let text = document.get_or_insert_text("panel");
        Panel { document, text }
    }

    /// The lines as they are now.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.content().lines().map(str::to_owned).collect()
    }

    /// Makes an edit, and returns the update that tells others of it.
    ///
    /// # Errors
    /// A sentence for the user, where the line does not exist or the text is full.
    pub(crate) fn edit(&mut self, edit: &Edit) -> Result<Vec<u8>, String> {
        let content = self.content();
        let line_at = |number: usize| {
            let mut start = 0;
            let lengths = content.split_inclusive('\n').map(str::len);
            let mut spans = lengths.map(|length| {
                start += length;
                (start - length, length)
            });
            let missing = || format!("there is no line {number}");
            number.checked_sub(1).and_then(|index| spans.nth(index)).ok_or_else(missing)
        };
        let (start, removed, line) = match edit {
            Edit::Append(line) => (content.len(), 0, Some(line)),
            Edit::Insert(number, line) => (line_at(*number)?.0, 0, Some(line)),
            Edit::Replace(number, line) => {
                let (start, length) = line_at(*number)?;
                (start, length, Some(line))
            }
            Edit::Delete(number) => {
                let (start, length) = line_at(*number)?;
                (start, length, None)
            }
        };
        let added = line.map_or(0, |line| line.len() + 1);
        if content.len() - removed + added > TEXT_BYTES_MAX {
            return Err(format!("the text has at most {TEXT_BYTES_MAX} bytes"));
        }
        let mut transaction = self.document.transact_mut();
        self.text.remove_range(&mut transaction, start as u32, removed as u32);
        if let Some(line) = line {
            self.text.insert(&mut transaction, start as u32, &format!("{line}\n"));
        }
        Ok(transaction.encode_update_v1())
    }

    /// Takes an update of another copy in. Returns whether the text changed; what is no update changes nothing.
    pub(crate) fn merge(&mut self, update: &[u8]) -> bool {
        let Ok(update) = Update::decode_v1(update) else { return false };
        let before = self.content();
        let merged = self.document.transact_mut().apply_update(update).is_ok();
        merged && self.content() != before
    }

    /// What this copy has, in a form that another can answer with what is missing. Deletions do not count in a state vector, so
    /// a digest of the text goes with it (FNV-1a, 64 bits).
    pub(crate) fn version(&self) -> Version {
        let digest = self.content().bytes().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Version { state: self.document.transact().state_vector().encode_v1(), digest }
    }

    /// The update with all that a copy of that version lacks; `None` where the copies are equal, or that is no version.
    pub(crate) fn missing_since(&self, version: &Version) -> Option<Vec<u8>> {
        let theirs = StateVector::decode_v1(&version.state).ok()?;
        (*version != self.version()).then(|| self.document.transact().encode_diff_v1(&theirs))
    }

    fn content(&self) -> String {
        self.text.get_string(&self.document.transact())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_were_edited_apart_become_equal() {
        let (mut one, mut other) = (Panel::new(), Panel::new());
        let first = one.edit(&Edit::Append("first".into())).unwrap();
        assert!(other.merge(&first));
        let here = one.edit(&Edit::Insert(1, "zeroth".into())).unwrap();
        let there = other.edit(&Edit::Append("last".into())).unwrap();
        assert!(one.merge(&there) && other.merge(&here) && !other.merge(&here));
        assert_eq!(one.lines(), ["zeroth", "first", "last"]);
        assert_eq!(one.lines(), other.lines());
        one.edit(&Edit::Delete(2)).unwrap();
        let deletion = one.missing_since(&other.version()).expect("the other lacks the deletion");
        assert!(other.merge(&deletion));
        assert_eq!(one.missing_since(&other.version()), None);
        assert_eq!(other.lines(), ["zeroth", "last"]);
    }

    #[test]
    fn what_cannot_be_done_is_said_and_rubbish_changes_nothing() {
        let mut panel = Panel::new();
        assert_eq!(panel.edit(&Edit::Delete(1)), Err("there is no line 1".to_owned()));
        assert!(panel.edit(&Edit::Append("x".repeat(TEXT_BYTES_MAX))).is_err());
        let no_version = Version { state: vec![0xff, 0xff], digest: 0 };
        assert!(!panel.merge(b"no update") && panel.missing_since(&no_version).is_none());
        panel.edit(&Edit::Append("naïve".into())).unwrap();
        panel.edit(&Edit::Append("two".into())).unwrap();
        panel.edit(&Edit::Replace(2, "zwei".into())).unwrap();
        assert_eq!(panel.lines(), ["naïve", "zwei"]);
    }
}
