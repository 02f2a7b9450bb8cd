//! A run in words, for people who replay a seed.

use std::time::Duration;

use super::run::Run;
use crate::peer::Peer;
use crate::sim::{Happening, What};

/// Who wants to hear of a run, and how much.
pub struct Telling<'a> {
    /// Is given each line, with the virtual time that it is about.
    pub line: &'a mut dyn FnMut(Duration, &str),
    /// Every message too that a node sends.
    pub every_message: bool,
}

impl Run<'_> {
    /// Tells a line that is made only if somebody listens.
    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        let now_us = self.simulator.now_us();
        if let Some(telling) = &mut self.telling {
            (telling.line)(Duration::from_micros(now_us), &line());
        }
    }

    pub(super) fn tell_happening(&mut self, happening: &Happening) {
        let Some(telling) = &mut self.telling else { return };
        let node = happening.node.0;
        let text = match &happening.what {
            What::Ring { predecessor, successor } => {
                let predecessor = predecessor.map_or("nobody".to_owned(), |id| id.to_string());
                format!("{node} stands between {predecessor} and {successor}")
            }
            What::Left { handed_over } => format!("{node} has left, handed over: {handed_over}"),
            other => format!("{node}: {other:?}"),
        };
        (telling.line)(Duration::from_micros(happening.at_us), &text);
    }

    /// Tells of the messages that nodes have sent since this was last done.
    pub(super) fn tell_messages(&mut self) {
        let Some(telling) = self.telling.as_mut().filter(|telling| telling.every_message) else { return };
        let Some(watch) = self.simulator.watched() else { return };
        for sending in watch.take_sendings() {
            let text = format!("  {} -> {}: {:?}", sending.from.0, sending.to.id, sending.message);
            (telling.line)(Duration::from_micros(sending.at_us), &text);
        }
    }

    /// The nodes as they are, a line each.
    pub(super) fn describe(&self) -> String {
        let line = |peer: &Peer| {
            let successors: Vec<_> = peer.successors().iter().map(|contact| contact.id).collect();
            let predecessor = peer.predecessor().map(|contact| contact.id);
            let (me, phase) = (peer.me(), peer.phase());
            let number = self.nodes.iter().position(|node| *node == me).unwrap_or_default();
            format!("{number}: {} {phase:?}, predecessor {predecessor:?}, successors {successors:?}\n", me.id)
        };
        self.view().nodes().map(line).collect()
    }
}
