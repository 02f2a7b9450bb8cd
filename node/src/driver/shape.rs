//! Shaped links: what a node does to its own messages where its rules say so.

use super::state::State;
use crate::com::limits::BACKLOG_BYTES_MAX;
use crate::com::shaping::{Cut, Departure, Fate, ShapeRules};
use crate::message::{Contact, Message};
use crate::metrics::ShapeEffect;
use crate::time::Time;
use crate::wire::encode;

impl State {
    /// Shapes the node's links by `rules` from now on, and in no other way.
    pub(super) fn shape(&mut self, now: Time, rules: &ShapeRules) {
        if self.is_stopped() {
            return;
        }
        let cut = self.shaper.set(now, rules);
        self.recorder.shaped(ShapeEffect::Cut, cut);
        self.release(now);
        // Links that broke while nothing could be heard of it are told of now.
        self.links.wake();
    }

    /// Sends what has come to leave.
    pub(super) fn release(&mut self, now: Time) {
        while let Some(Departure { to, frame }) = self.shaper.depart(now) {
            let room = self.links.backlog_bytes() + self.dials.queued_bytes() < BACKLOG_BYTES_MAX;
            let left = room
                && match self.link_to(&to) {
                    Some(key) => self.links.push_frame(key, self.turn, &frame),
                    None => self.dials.push_frame(to, &frame),
                };
            if !left {
                self.recorder.shaped(ShapeEffect::Overflow, 1);
            }
        }
    }

    /// Does to a message what the rules say. `false`: nothing, it is to be sent.
    pub(super) fn send_shaped(&mut self, now: Time, to: Contact, message: &Message) -> bool {
        let Some(shape) = self.shaper.shape(to.id).filter(|_| to != self.peer.me()) else { return false };
        let mut frame = Vec::new();
        // A message that no receiver would take is not sent, as without rules.
        let Ok(bytes) = encode(message, &mut frame) else { return true };
        let effect = match self.shaper.decide(now, to.id, bytes) {
            Fate::Leaves => return false,
            Fate::Waits(until) => {
                self.shaper.hold(until, Departure { to, frame });
                ShapeEffect::Delayed
            }
            Fate::Lost => ShapeEffect::Lost,
            Fate::Cut => ShapeEffect::Cut,
            Fate::Overflow => ShapeEffect::Overflow,
        };
        // Where no link can be made, the attempt fails in its time.
        if shape.cut == Cut::Both && self.links.find(&to).is_none() {
            self.dials.begin(to);
        }
        self.recorder.shaped(effect, 1);
        self.recorder.sent(message.kind(), bytes);
        true
    }
}
