//! Joining: the joiner finds the responsible of its id, takes its place before it, and is handed the duty for its range in one
//! message, so that at no moment two nodes answer for a key.
//!
//! 1. joiner -> bootstrap -> ... -> responsible: `Join`, routed to the joiner's id
//! 2. responsible -> joiner: `JoinOffer` with its successor list
//! 3. joiner -> responsible: `JoinConfirm`: it lives, and adopts the list
//! 4. responsible -> joiner: `HandOver`: from here on the joiner is a member, and the responsible's predecessor
//! 5. joiner -> predecessor: `Introduce`
//!
//! The duty passes only to a joiner that was dialled back (`guests`). One that gets no offer goes to the responsible itself:
//! it asks the bootstrap node who that is (`Locate`), and asks that one (`Admit`), which makes an offer after all, or takes it
//! for a client (`clients`, `proxy`). A client finds its next proxy in the same way.

use std::time::Duration;

use crate::access_point::AccessPoint;
use crate::config::ProxyUse;
use crate::core::effect::{Event, JoinError, Output, Phase};
use crate::core::guests::Wish;
use crate::core::planted::Bug;
use crate::core::timers::Timer;
use crate::core::{Context, Core};
use crate::message::client::ClientTalk;
use crate::message::{Body, Contact, Message, Route, RouteError};

/// How often a join is tried, over all access points.
pub(crate) const JOIN_ATTEMPTS_MAX: u32 = 12;

/// How long each step of a join may take.
const JOIN_STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the responsible may take for an offer to a joiner that it dials back first, perhaps in vain.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long until the second attempt; each further pause is twice as long, up to [`JOIN_RETRY_MAX`].
const JOIN_RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest pause between attempts.
const JOIN_RETRY_MAX: Duration = Duration::from_secs(2);

/// How many of the nodes that were asked last who the responsible is may still say so when others are being asked.
const LATE_MAX: usize = 4;

/// A join on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Joining {
    pub(super) bootstrap: Vec<AccessPoint>,
    pub(super) attempts: u32,
    /// It goes to the responsible itself, instead of waiting for that one's offer.
    pub(super) direct: bool,
    pub(super) stage: Stage,
    /// Who was asked last in vain who the responsible is, with the number of the question: a network that heals says so late.
    pub(super) late: Vec<(Contact, u64)>,
    pub(super) last_failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// The next attempt begins when the timer says so.
    Pausing,
    /// A link to an access point is being made.
    Connecting,
    /// The request is on its way, by this node.
    Requested { by: Contact, sequence: u64 },
    /// This node has been asked who the responsible is.
    Locating { by: Contact, sequence: u64 },
    /// The responsible has been asked.
    Asking { of: Contact, sequence: u64 },
    /// The offer of this node has been accepted.
    Confirmed { with: Contact, sequence: u64 },
}

impl Core {
    /// Joins the network that one of these access points belongs to.
    pub(crate) fn join(&mut self, cx: &mut Context<'_>, bootstrap: Vec<AccessPoint>) {
        if self.phase != Phase::Idle {
            return;
        }
        self.phase = Phase::Joining;
        if self.proxy_use == ProxyUse::Always {
            self.me = self.me.as_client();
        }
        self.proxy.bootstrap.clone_from(&bootstrap);
        self.begin_joining(cx, bootstrap);
    }

    /// Joins, or, as a client, looks for a proxy.
    pub(crate) fn begin_joining(&mut self, cx: &mut Context<'_>, bootstrap: Vec<AccessPoint>) {
        if bootstrap.is_empty() {
            return self.reject(cx, JoinError::Unreachable("no access point was given".to_owned()));
        }
        let direct = self.me.is_client();
        let stage = Stage::Pausing;
        self.joining =
            Some(Joining { bootstrap, attempts: 0, direct, stage, late: Vec::new(), last_failure: None });
        self.attempt_join(cx);
    }

    pub(crate) fn end_joining(&mut self) {
        self.joining = None;
        self.timers.clear(Timer::Join);
    }

    /// Whether a client looks for a proxy.
    pub(crate) fn is_seeking(&self) -> bool {
        self.joining.is_some()
    }

    /// Whether this node was asked to let the present one in.
    pub(crate) fn asks_for_admission(&self, from: Contact) -> bool {
        matches!(&self.joining, Some(Joining { stage: Stage::Asking { of, .. }, .. }) if *of == from)
    }

    fn attempt_join(&mut self, cx: &mut Context<'_>) {
        let Some(joining) = &mut self.joining else { return };
        let turn = joining.attempts as usize % joining.bootstrap.len();
        let access_point = joining.bootstrap[turn];
        joining.attempts = joining.attempts.saturating_add(1);
        joining.stage = Stage::Connecting;
        self.set_join_timer(cx, JOIN_STEP_TIMEOUT);
        cx.out.push(Output::Connect { access_point });
    }

    fn set_join_timer(&mut self, cx: &Context<'_>, after: Duration) {
        self.timers.clear(Timer::Join);
        self.timers.set(cx.now + after, Timer::Join);
    }

    /// A pause is over, or a step was not answered.
    pub(crate) fn on_join_due(&mut self, cx: &mut Context<'_>) {
        match self.joining.as_ref().map(|joining| joining.stage) {
            Some(Stage::Pausing) => self.attempt_join(cx),
            Some(_) => {
                let is_client = self.me.is_client();
                if let Some(joining) = &mut self.joining {
                    // Perhaps the offer came, but found nobody; or the way to the responsible is barred.
                    joining.direct = is_client || !joining.direct;
                    if let Stage::Locating { by, sequence } = joining.stage {
                        joining.late.truncate(LATE_MAX - 1);
                        joining.late.insert(0, (by, sequence));
                    }
                }
                self.retry_join(cx, "a step of the join was not answered");
            }
            None => {}
        }
    }

    pub(crate) fn retry_join(&mut self, cx: &mut Context<'_>, failure: &str) {
        let Some(joining) = &mut self.joining else { return };
        joining.last_failure = Some(failure.to_owned());
        let never_reached = joining.stage == Stage::Connecting;
        joining.stage = Stage::Pausing;
        let attempts = joining.attempts;
        // A client that has lost its proxy goes on, at the longest pause.
        if attempts >= JOIN_ATTEMPTS_MAX && self.phase == Phase::Joining {
            let error = match never_reached {
                true => JoinError::Unreachable(failure.to_owned()),
                false => JoinError::TimedOut { attempts },
            };
            return self.reject(cx, error);
        }
        let pause = (JOIN_RETRY_MIN * (1 << (attempts - 1).min(8))).min(JOIN_RETRY_MAX);
        let pause = self.jittered(pause);
        self.set_join_timer(cx, pause);
    }

    pub(crate) fn reject(&mut self, cx: &mut Context<'_>, error: JoinError) {
        self.phase = Phase::Ended;
        self.end_joining();
        cx.event(Event::Rejected(error));
    }

    /// A link that was asked for stands.
    pub(crate) fn on_link_up(&mut self, cx: &mut Context<'_>, contact: Contact) {
        if self.phase == Phase::Member {
            return self.ask_for_place(cx, contact);
        }
        let sequence = self.next_token();
        let route = self.new_route(sequence, self.me.id, Body::Join);
        let Some(joining) = self.joining.as_mut().filter(|joining| joining.stage == Stage::Connecting) else {
            return;
        };
        let message = if joining.direct {
            joining.stage = Stage::Locating { by: contact, sequence };
            Message::Client(ClientTalk::Locate { sequence })
        } else {
            joining.stage = Stage::Requested { by: contact, sequence };
            Message::Route(Route { hops: 1, ..route })
        };
        self.set_join_timer(cx, JOIN_STEP_TIMEOUT);
        self.send(cx, contact, message);
    }

    /// The network says who is responsible of this node's id.
    pub(crate) fn on_located(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        sequence: u64,
        result: Result<Contact, RouteError>,
    ) {
        if self.phase == Phase::Member {
            return self.on_place_told(cx, from, sequence, result);
        }
        let asking = self.next_token();
        let Some(joining) = &mut self.joining else { return };
        let is_late = joining.late.contains(&(from, sequence));
        joining.late.retain(|asked| *asked != (from, sequence));
        match joining.stage {
            Stage::Locating { by, sequence: mine } if (by, mine) == (from, sequence) => {}
            Stage::Pausing | Stage::Connecting | Stage::Locating { .. } if is_late && result.is_ok() => {}
            _ => return,
        }
        let of = match result {
            Ok(responsible) if responsible.id != self.me.id => responsible,
            Ok(_) if self.phase == Phase::Joining => {
                return self.reject(cx, JoinError::IdInUse(self.me.id));
            }
            Ok(_) => return self.retry_join(cx, "another node has this one's id"),
            Err(reason) => return self.retry_join(cx, &reason.to_string()),
        };
        joining.stage = Stage::Asking { of, sequence: asking };
        let as_client = self.me.is_client();
        self.set_join_timer(cx, if as_client { JOIN_STEP_TIMEOUT } else { ADMISSION_TIMEOUT });
        self.send(cx, of, Message::Client(ClientTalk::Admit { sequence: asking, as_client }));
    }

    /// An access point could not be reached.
    pub(crate) fn on_bootstrap_unreachable(&mut self, cx: &mut Context<'_>, reason: &str) {
        if self.joining.as_ref().is_some_and(|joining| joining.stage == Stage::Connecting) {
            self.retry_join(cx, reason);
        }
    }

    /// A node that the join went by is gone.
    pub(crate) fn on_join_peer_lost(&mut self, cx: &mut Context<'_>, contact: Contact) {
        let lost = self.joining.as_ref().is_some_and(|joining| match joining.stage {
            Stage::Requested { by, .. } | Stage::Locating { by, .. } => by == contact,
            Stage::Asking { of, .. } => of == contact,
            Stage::Confirmed { with, .. } => with == contact,
            Stage::Pausing | Stage::Connecting => false,
        });
        if lost {
            self.retry_join(cx, "the link to the network broke");
        }
    }

    /// The network could not route the request, or refuses it.
    pub(crate) fn on_join_refused(&mut self, cx: &mut Context<'_>, sequence: u64, reason: RouteError) {
        let Some(Joining { stage: Stage::Requested { sequence: mine, .. }, .. }) = &self.joining else {
            return;
        };
        if *mine != sequence {
            return;
        }
        match reason {
            RouteError::IdInUse => self.reject(cx, JoinError::IdInUse(self.me.id)),
            other => self.retry_join(cx, &other.to_string()),
        }
    }

    /// The node that was to pass the request on is no member itself, or has too much to do.
    pub(crate) fn on_join_not_passed_on(&mut self, cx: &mut Context<'_>, from: Contact) {
        if let Some(Joining { stage: Stage::Requested { by, .. }, .. }) = &self.joining
            && *by == from
        {
            self.retry_join(cx, "the node at the access point is no member of a network yet");
        }
    }

    /// The responsible of a joiner's id: offers the place before this node.
    pub(crate) fn on_join_request(&mut self, cx: &mut Context<'_>, route: Route) {
        let (joiner, sequence) = (route.source, route.sequence);
        if joiner.id == self.me.id || self.clients.has_other(&joiner) {
            return self.refuse(cx, &route, RouteError::IdInUse);
        }
        if self.phase != Phase::Member || joiner.is_client() {
            return self.refuse(cx, &route, RouteError::NotMember);
        }
        // Claimed for this node, while it knows no predecessor: it will answer for the joiner's id, and can let it in, once one
        // speaks up. An offer now would bring it back here in circles.
        if !self.neighbours.is_mine(joiner.id) {
            return self.refuse(cx, &route, RouteError::NoNextHop);
        }
        self.offer_place(cx, joiner, sequence);
        self.is_reached(cx, joiner, sequence, Wish::Nothing);
    }

    pub(crate) fn on_join_offer(&mut self, cx: &mut Context<'_>, from: Contact, sequence: u64) {
        let Some(joining) = &mut self.joining else { return };
        let expected = match joining.stage {
            Stage::Requested { sequence: mine, .. }
            | Stage::Asking { sequence: mine, .. }
            | Stage::Confirmed { sequence: mine, .. } => mine == sequence,
            Stage::Pausing | Stage::Connecting | Stage::Locating { .. } => false,
        };
        if expected {
            joining.stage = Stage::Confirmed { with: from, sequence };
            self.set_join_timer(cx, JOIN_STEP_TIMEOUT);
            self.send(cx, from, Message::JoinConfirm { sequence });
        }
    }

    /// The joiner takes the place: the duty for its range goes to it, unless another joiner was faster, or it cannot be reached.
    pub(crate) fn on_join_confirm(&mut self, cx: &mut Context<'_>, from: Contact, sequence: u64) {
        let is_client = from.is_client() || self.clients.has_link(&from);
        if self.phase != Phase::Member || from.id == self.me.id || is_client {
            return;
        }
        let present = self.neighbours.predecessor();
        let repeated = present.is_some_and(|present| present.id == from.id);
        let predecessor = if self.neighbours.has_whole_ring() { Some(self.me) } else { present };
        // Not whoever would be a closer predecessor: while none is known anybody would, and might be given what is others'.
        if !repeated && !self.neighbours.is_mine(from.id) {
            let route = Route { source: from, ..self.new_route(sequence, from.id, Body::Join) };
            self.dispatch(cx, route);
            return;
        }
        if !self.is_reached(cx, from, sequence, Wish::Range) {
            return;
        }
        self.guests.forget(&from);
        let predecessor = predecessor.filter(|_| !repeated);
        let successors = self.neighbours.successors().to_vec();
        let fingers = self.finger_hints();
        self.send(cx, from, Message::HandOver { predecessor, successors, fingers });
        self.statistics.joins += 1;
        if self.planted.has(Bug::RangeKeptAtJoin) {
            return;
        }
        self.follow_predecessor(cx, Some(from), predecessor.map(|contact| contact.id));
    }

    /// The joiner answers for its range from now on.
    pub(crate) fn on_hand_over(
        &mut self,
        cx: &mut Context<'_>,
        from: Contact,
        predecessor: Option<Contact>,
        successors: &[Contact],
        fingers: &[Contact],
    ) {
        if !matches!(&self.joining, Some(Joining { stage: Stage::Confirmed { with, .. }, .. }) if *with == from)
        {
            return;
        }
        self.end_joining();
        self.phase = Phase::Member;
        self.keep_way_back(cx);
        cx.event(Event::Connected { use_proxy: false });
        self.giver = Some((from, cx.now));
        self.follow_predecessor(cx, predecessor, None);
        self.adopt_successors(cx, from, successors);
        if let Some(predecessor) = predecessor {
            let successors = self.neighbours.successors().to_vec();
            self.send(cx, predecessor, Message::Introduce { successors });
        }
        self.guess_fingers(cx, fingers);
        self.put_finger_checks_off(cx);
        self.tell_of_join(cx);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::NetConfig;
    use crate::core::effect::{Outbox, Output};
    use crate::id::Id;
    use crate::message::{Contact, Message};
    use crate::peer::{ConvergedRing, Input, Peer};
    use crate::time::Time;

    fn contact(id: u64) -> Contact {
        Contact { id: Id(id), access_point: "p2ps://127.0.0.1:1".parse().unwrap(), incarnation: 1 }
    }

    /// Whether a node answers the confirmation of a joiner, which it can reach, with its range.
    fn hands_over(peer: &mut Peer, joiner: Contact) -> bool {
        let mut out = Outbox::new();
        let confirm = Message::JoinConfirm { sequence: 1 };
        peer.handle(Time::from_micros(2), Input::Receive { from: joiner, message: confirm }, &mut out);
        peer.handle(Time::from_micros(3), Input::Reached { contact: joiner }, &mut out);
        let is_range = |output: &Output| matches!(output, Output::Send { to, message: Message::HandOver { .. } } if *to == joiner);
        out.iter().any(is_range)
    }

    /// A thousand nodes that joined within a second (`experiments/geometry.yaml` with Chord's table, seed 7) had two answers for
    /// some keys for a minute: a member whose predecessor was gone had let joiners in that stood far from its range.
    #[test]
    fn a_member_whose_predecessor_is_gone_hands_over_nothing_beyond_its_range() {
        let members = [10, 20, 30, 40].map(contact);
        let net = NetConfig::default();
        let ring = ConvergedRing::new(net.ring(), &members);
        let mut peer = Peer::new(net, contact(30), 1);
        peer.settle(Time::from_micros(0), &ring, false);
        let gone = Input::LinkDown { contact: contact(20), orderly: false };
        peer.handle(Time::from_micros(1), gone, &mut Outbox::new());
        assert_eq!(peer.predecessor(), None);
        for outside in [5, 15, 35] {
            assert!(!hands_over(&mut peer, contact(outside)), "{outside}");
        }
        assert!(hands_over(&mut peer, contact(25)));
        assert!(!hands_over(&mut peer, contact(22)), "25 answers for it now");
    }
}
