//! A board of notes that needs no server: each node has a copy, and copies that have heard of the same changes, in whatever order and
//! however often, are equal. A note that was withdrawn stays withdrawn.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use p2ps::id::Id;
use serde::{Deserialize, Serialize};

/// The most notes on a board, withdrawn ones too: what comes then is not taken in.
pub(crate) const NOTES_MAX: usize = 10_000;

/// The longest text, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 1024;

/// Which note: the node that posted it, and the how manyeth of its notes it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct NoteId {
    pub(crate) node: Id,
    pub(crate) number: u64,
}

impl fmt::Display for NoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.number)
    }
}

impl FromStr for NoteId {
    type Err = String;

    fn from_str(text: &str) -> Result<NoteId, String> {
        let parsed = text.split_once('/').and_then(|(node, number)| {
            Some(NoteId { node: Id(node.parse().ok()?), number: number.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{text:?} is no note: write it as `list` does, such as 42/1"))
    }
}

/// What can happen to a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Posted { note: NoteId, author: String, text: String },
    Withdrawn { note: NoteId },
}

/// One copy of the board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Board {
    /// Each note's author and text; `None`: it was withdrawn.
    notes: BTreeMap<NoteId, Option<(String, String)>>,
}

impl Board {
    /// Takes a change in. Returns whether it was new.
    pub(crate) fn apply(&mut self, change: &Change) -> bool {
        let (note, content) = match change {
            Change::Posted { note, author, text } => (note, Some((author.clone(), text.clone()))),
            Change::Withdrawn { note } => (note, None),
        };
        let too_long =
            content.as_ref().is_some_and(|(author, text)| author.len() + text.len() > TEXT_BYTES_MAX);
        let full = self.notes.len() >= NOTES_MAX;
        match self.notes.get_mut(note) {
            Some(known) if known.is_some() && content.is_none() => *known = None,
            None if !full && !too_long => _ = self.notes.insert(*note, content),
            Some(_) | None => return false,
        }
        true
    }

    /// Everything that has happened, as far as it matters now.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.notes.iter().map(|(note, content)| match content.clone() {
            Some((author, text)) => Change::Posted { note: *note, author, text },
            None => Change::Withdrawn { note: *note },
        })
    }

    /// The notes that hang on the board: which, by whom, and what they say.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (NoteId, &str, &str)> {
        self.notes.iter().filter_map(|(note, content)| {
            let (author, text) = content.as_ref()?;
            Some((*note, author.as_str(), text.as_str()))
        })
    }

    /// The largest number among the notes of one node, 0 where it has none.
    pub(crate) fn last_number(&self, node: Id) -> u64 {
        let of_node = NoteId { node, number: 0 }..=NoteId { node, number: u64::MAX };
        self.notes.range(of_node).next_back().map_or(0, |(note, _)| note.number)
    }

    /// Equal boards have equal digests; others, as good as never (FNV-1a, 64 bits, over the notes in their order).
    pub(crate) fn digest(&self) -> u64 {
        let bytes = self.notes.iter().flat_map(|note| p2ps::typed::encode(&note).unwrap_or_default());
        bytes.fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lead_to_the_same_board_in_whatever_order_they_come() {
        let note = |number| NoteId { node: Id(7), number };
        let posted = |number: u64| Change::Posted {
            note: note(number),
            author: "ann".into(),
            text: number.to_string(),
        };
        let changes = [posted(1), posted(2), Change::Withdrawn { note: note(1) }, posted(1)];
        let (mut forth, mut back) = (Board::default(), Board::default());
        changes.iter().for_each(|change| _ = forth.apply(change));
        changes.iter().rev().for_each(|change| _ = back.apply(change));
        assert_eq!(forth, back);
        assert_eq!(forth.digest(), back.digest());
        assert_eq!(forth.notes().map(|(note, ..)| note.to_string()).collect::<Vec<_>>(), ["7/2"]);
        assert_eq!((forth.last_number(Id(7)), forth.last_number(Id(8))), (2, 0));
        assert_eq!("7/2".parse(), Ok(note(2)));
    }
}
