//! The bounds of what is said of the dictionary.

use super::{WireError, check_id, check_length};
use crate::id::Ring;
use crate::message::dictionary::{CHUNK_ITEMS_MAX, Cursor, Item, Request, Stored, Talk, VALUE_BYTES_MAX};

pub(super) fn check_request(request: &Request, ring: Ring) -> Result<(), WireError> {
    match request {
        Request::Write(value) => check_value(value.as_deref()),
        Request::Read(key) | Request::Compare { key, .. } => check_id(*key, ring),
        Request::Keep(item) => check_item(item, ring),
        Request::Fetch { key, last } => check_id(*key, ring).and_then(|()| check_id(*last, ring)),
    }
}

pub(super) fn check_talk(talk: &Talk, ring: Ring) -> Result<(), WireError> {
    match talk {
        Talk::Value { result: Ok(Some(Stored { value, .. })), .. } => check_value(Some(value)),
        Talk::Fetch { cursor, last, .. } => check_cursor(*cursor, ring).and_then(|()| check_id(*last, ring)),
        Talk::Items { items, next, .. } => {
            check_length("items", items.len(), CHUNK_ITEMS_MAX)?;
            next.iter().try_for_each(|cursor| check_cursor(*cursor, ring))?;
            items.iter().try_for_each(|item| check_item(item, ring))
        }
        Talk::Taken(span) => check_id(span.first, ring).and_then(|()| check_id(span.last, ring)),
        Talk::Value { .. } | Talk::Written { .. } | Talk::Kept { .. } => Ok(()),
    }
}

fn check_item(item: &Item, ring: Ring) -> Result<(), WireError> {
    check_id(item.key, ring)?;
    check_value(item.value.as_deref())
}

fn check_cursor(cursor: Cursor, ring: Ring) -> Result<(), WireError> {
    check_id(cursor.place, ring)?;
    check_id(cursor.key, ring)
}

pub(super) fn check_value(value: Option<&[u8]>) -> Result<(), WireError> {
    check_length("bytes of a value", value.map_or(0, <[u8]>::len), VALUE_BYTES_MAX)
}
