//! Parts of a network that have lost each other meet again by their access points. When a partition heals, neighbours that were
//! lost by it find each other ([`departed`](super::departed)), as long as two live that knew each other across it. When those
//! are gone, what is left is the way by which nodes came into the network: a node asks whoever is at one of its access
//! points, in turn, who is responsible of its id. In its own part that is the node itself. In another one it is a node
//! that becomes its successor, or may take it for its own, and from there the rings close like a zip.
//!
//! The larger the ring, the longer a node waits between two questions: the network as a whole asks one each
//! [`QUESTION_PERIOD`], however large it is, and a node that is left with few others asks soon. Nodes that it has for
//! neighbours it does not ask.

use std::time::Duration;

use crate::access_point::AccessPoint;
use crate::core::effect::{Output, Phase};
use crate::core::planted::Bug;
use crate::core::repair::Purpose;
use crate::core::{Context, Core};
use crate::message::client::ClientTalk;
use crate::message::{Contact, Message, RouteError};
use crate::time::Time;

/// How often one node of the network asks whether there is another part of it.
const QUESTION_PERIOD: Duration = Duration::from_secs(5);

/// What a node knows of its questions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reunion {
    /// When it asked last, or came into the network; `None`: it came by no access point.
    asked_at: Option<Time>,
    /// The access point that is asked next, by its place among all.
    turn: usize,
    question: Option<Question>,
}

/// A question on its way; the next one replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Question {
    /// A link to the access point is being made.
    Connecting,
    /// This node has been asked.
    Locating { by: Contact, sequence: u64 },
}

impl Core {
    /// This node has joined by its access points: they lead to others, should it lose all that it knows.
    pub(crate) fn keep_way_back(&mut self, cx: &Context<'_>) {
        self.reunion.asked_at = Some(cx.now);
    }

    /// Asks at an access point whether there is another part of the network, if it is time.
    pub(crate) fn seek_other_parts(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Member || self.planted.has(Bug::DepartedForgotten) {
            return;
        }
        let Some(asked_at) = self.reunion.asked_at else { return };
        let nodes = u32::try_from(self.neighbours.ring_nodes()).unwrap_or(u32::MAX);
        if cx.now.since(asked_at) < QUESTION_PERIOD.saturating_mul(nodes) {
            return;
        }
        self.reunion.asked_at = Some(cx.now);
        if let Some(access_point) = self.next_access_point() {
            self.reunion.question = Some(Question::Connecting);
            cx.out.push(Output::Connect { access_point });
        }
    }

    /// The next of its access points that is not a neighbour's, nor its own.
    fn next_access_point(&mut self) -> Option<AccessPoint> {
        let access_points = &self.proxy.bootstrap;
        let is_near = |access_point: &AccessPoint| {
            let near = self.neighbours.successors().iter().copied().chain(self.neighbours.predecessor());
            near.chain([self.me]).any(|contact| contact.access_point == *access_point)
        };
        let count = access_points.len();
        let places = (0..count).map(|step| (self.reunion.turn + step) % count);
        let place = places.into_iter().find(|place| !is_near(&access_points[*place]))?;
        let access_point = access_points[place];
        self.reunion.turn = (place + 1) % count;
        Some(access_point)
    }

    /// A link to an access point stands.
    pub(crate) fn ask_for_place(&mut self, cx: &mut Context<'_>, by: Contact) {
        if self.reunion.question == Some(Question::Connecting) && by.id != self.me.id {
            let sequence = self.next_token();
            self.reunion.question = Some(Question::Locating { by, sequence });
            self.send(cx, by, Message::Client(ClientTalk::Locate { sequence }));
        }
    }

    /// The node at an access point says who is responsible of this one's id, in its part of the network.
    pub(crate) fn on_place_told(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        sequence: u64,
        result: Result<Contact, RouteError>,
    ) {
        let answered = Question::Locating { by: from, sequence };
        if self.reunion.question.take_if(|question| *question == answered).is_none() {
            return;
        }
        if let Ok(responsible) = result
            && responsible.id != self.me.id
            && !self.neighbours.contains(&responsible)
        {
            self.request(cx, responsible, Purpose::Return);
        }
    }
}
