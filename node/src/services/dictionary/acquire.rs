//! Acquiring a part of the ring: whenever a node's range grows, it fetches the items of the new part, chunk by chunk, before it
//! answers for them.
//!
//! After a join or a leave the part's last responsible has them: the *giver*, who keeps them until it hears that they are all
//! taken. Where there is none, since it died, the other places of the same keys have copies: one *walk* for each distance
//! between places goes along the nodes there. A pass of walks is enough if one of them met only nodes that know all that
//! they should, or nobody could know more; else another pass follows.

use std::time::Duration;

use super::Dictionary;
use super::store::{Merged, Room, first_of};
use super::writes::tell;
use crate::core::digest::Digest;
use crate::core::planted::Bug;
use crate::core::{Context, Core};
use crate::id::{Id, Span};
use crate::message::dictionary::{Cursor, Holding, Item, Request, Talk};
use crate::message::{Body, Contact};
use crate::time::Time;

/// The most parts that are acquired at once; beyond it the whole range is acquired anew.
pub const ACQUISITIONS_MAX: usize = 32;

/// How often in a row a question may go unanswered.
const ATTEMPTS_MAX: u32 = 4;

/// How long the first attempt may take; each further one may take twice as long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long until a giver that is being told the items itself is asked again.
const GIVER_PAUSE: Duration = Duration::from_millis(100);

/// How long a giver is waited for, since it was first asked.
const GIVER_TIMEOUT: Duration = Duration::from_secs(60);

/// How often all other places are asked, where no walk meets only nodes that know all that they should.
const PASSES_MAX: u32 = 6;

/// How long until the second pass; each further pause is twice as long.
const PASS_PAUSE: Duration = Duration::from_millis(250);

/// For how long a node that handed a range over may be asked for the items: the range may become known only later.
const GIVER_KEPT: Duration = Duration::from_secs(10);

/// A part of the ring whose items are being fetched.
#[derive(Clone, Debug)]
pub(super) struct Acquisition {
    pub(super) span: Span,
    from: Source,
    walks: Vec<Walk>,
    /// There was no room for some of it.
    overflowed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The last responsible.
    Giver { giver: Contact, gives_up_at: Time },
    /// The other places, in this pass.
    Places { pass: u32 },
    /// The pause after this pass.
    Pausing { pass: u32, token: u64 },
}

/// One way along the nodes that have the items.
#[derive(Clone, Debug)]
struct Walk {
    /// The number of its question.
    token: u64,
    span: Span,
    cursor: Cursor,
    state: WalkState,
    attempts: u32,
    due: Time,
    /// It met a node that does not know all that it should but may get to, or one that does not answer.
    met_others_lacking: bool,
    /// It met the part that is being acquired.
    met_own_lacking: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WalkState {
    Asking,
    Done,
}

impl Dictionary {
    /// Whether this place is in a part that is being acquired.
    pub(super) fn is_acquiring(&self, place: Id) -> bool {
        self.acquisitions.iter().any(|acquisition| acquisition.span.contains(self.places.ring, place))
    }

    /// Begins to acquire a part that is new to the node's range.
    pub(super) fn acquire(&mut self, core: &mut Core, cx: &mut Context<'_>, span: Span) {
        let is_singleton = span.first == span.last;
        let giver = core.giver.filter(|(_, since)| cx.now < *since + GIVER_KEPT);
        if !is_singleton {
            core.giver = None;
        }
        let span = if self.acquisitions.len() < ACQUISITIONS_MAX {
            span
        } else {
            self.drop_acquisitions(core);
            core.range().unwrap_or(span)
        };
        let from = match giver {
            Some((giver, _)) => Source::Giver { giver, gives_up_at: cx.now + GIVER_TIMEOUT },
            None => Source::Places { pass: 0 },
        };
        self.acquisitions.push(Acquisition { span, from, walks: Vec::new(), overflowed: false });
        self.begin_walks(core, cx, self.acquisitions.len() - 1);
    }

    /// Asks the giver, or begins a pass over the other places.
    fn begin_walks(&mut self, core: &mut Core, cx: &mut Context<'_>, index: usize) {
        let Some(acquisition) = self.acquisitions.get_mut(index) else { return };
        let spans: Vec<Span> = match acquisition.from {
            Source::Giver { .. } => vec![acquisition.span],
            _ => (1..self.places.count).map(|shift| self.places.shifted(acquisition.span, shift)).collect(),
        };
        let walk = |span| Walk {
            token: core.next_token(),
            span,
            cursor: first_of(span),
            state: WalkState::Asking,
            attempts: 0,
            due: cx.now,
            met_others_lacking: false,
            met_own_lacking: false,
        };
        acquisition.walks = spans.into_iter().map(walk).collect();
        let tokens: Vec<u64> = acquisition.walks.iter().map(|walk| walk.token).collect();
        for token in &tokens {
            self.ask(core, cx, *token);
        }
        if tokens.is_empty() {
            self.acquisitions.remove(index);
        }
    }

    fn find_walk(&mut self, token: u64) -> Option<(usize, &mut Acquisition, usize)> {
        self.acquisitions.iter_mut().enumerate().find_map(|(index, acquisition)| {
            let walk = acquisition.walks.iter().position(|walk| walk.token == token)?;
            Some((index, acquisition, walk))
        })
    }

    /// Asks for the next chunk, or for the same one again.
    fn ask(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        let Some((_, acquisition, place)) = self.find_walk(token) else { return };
        let from = acquisition.from;
        let walk = &mut acquisition.walks[place];
        let timeout = ATTEMPT_TIMEOUT * (1 << walk.attempts.min(4));
        walk.attempts += 1;
        walk.due = cx.now + timeout;
        let (cursor, last) = (walk.cursor, walk.span.last);
        core.set_service_timer(walk.due, token);
        match from {
            Source::Giver { giver, .. } => tell(core, cx, giver, Talk::Fetch { token, cursor, last }),
            _ => {
                let request = Request::Fetch { key: cursor.key, last };
                let route = core.new_route(token, cursor.place, Body::Dictionary(request));
                core.dispatch(cx, route);
            }
        }
    }

    /// A question was not answered, or it is time to ask again.
    pub(super) fn on_walk_due(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        if self.resume(core, cx, token) {
            return;
        }
        let Some((index, acquisition, place)) = self.find_walk(token) else { return };
        let gives_up_at = match acquisition.from {
            Source::Giver { gives_up_at, .. } => Some(gives_up_at),
            _ => None,
        };
        let walk = &mut acquisition.walks[place];
        if walk.state == WalkState::Done {
            return;
        }
        if walk.attempts < ATTEMPTS_MAX && gives_up_at.is_none_or(|at| cx.now < at) {
            self.ask(core, cx, token);
        } else if gives_up_at.is_some() {
            self.turn_to_places(core, cx, index);
        } else {
            walk.met_others_lacking = true;
            self.end_walk(core, cx, token);
        }
    }

    /// The pause between two passes is over.
    fn resume(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) -> bool {
        let paused = self.acquisitions.iter().position(
            |acquisition| matches!(acquisition.from, Source::Pausing { token: mine, .. } if mine == token),
        );
        let Some(index) = paused else { return false };
        if let Source::Pausing { pass, .. } = self.acquisitions[index].from {
            self.acquisitions[index].from = Source::Places { pass: pass + 1 };
        }
        self.begin_walks(core, cx, index);
        true
    }

    /// A node is taken for dead: who waits for what it would give goes to the other places.
    pub(super) fn on_giver_lost(&mut self, core: &mut Core, cx: &mut Context<'_>, lost: Contact) {
        let waits = |acquisition: &Acquisition| matches!(acquisition.from, Source::Giver { giver, .. } if giver == lost);
        while let Some(index) = self.acquisitions.iter().position(waits) {
            self.turn_to_places(core, cx, index);
        }
    }

    fn turn_to_places(&mut self, core: &mut Core, cx: &mut Context<'_>, index: usize) {
        self.cancel_walks(core, index);
        if let Some(acquisition) = self.acquisitions.get_mut(index) {
            acquisition.from = Source::Places { pass: 0 };
            self.begin_walks(core, cx, index);
        }
    }

    /// Items that were asked for.
    pub(super) fn on_items(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        from: Contact,
        token: u64,
        (items, next, holding): (&[Item], Option<Cursor>, Holding),
    ) {
        let (ring, me, is_only) = (self.places.ring, core.me, self.acquisitions.len() == 1);
        let Some((index, acquisition, place)) = self.find_walk(token) else { return };
        let (span, source) = (acquisition.span, acquisition.from);
        let is_giver = matches!(source, Source::Giver { giver, .. } if giver == from);
        if matches!(source, Source::Giver { .. }) && !is_giver {
            return;
        }
        let walk = &mut acquisition.walks[place];
        if walk.state == WalkState::Done {
            return;
        }
        core.cancel_service_timer(walk.due, token);
        let holding = if core.planted.has(Bug::AcquiringTakenForWhole) { Holding::Whole } else { holding };
        if is_giver && holding == Holding::Acquiring {
            walk.attempts = 0;
            walk.due = cx.now + GIVER_PAUSE;
            return core.set_service_timer(walk.due, token);
        }
        let progress = |cursor: Cursor| (ring.distance(walk.span.first, cursor.place), cursor.key);
        let goes_on = next.filter(|next| walk.span.contains(ring, next.place));
        let is_stuck = goes_on.is_some_and(|next| progress(next) <= progress(walk.cursor));
        walk.attempts = 0;
        if holding != Holding::Whole || is_stuck {
            let waits_for_itself = from == me && is_only;
            walk.met_own_lacking |= waits_for_itself;
            walk.met_others_lacking |= !waits_for_itself;
        }
        if let Some(next) = goes_on {
            walk.cursor = next;
        }
        let giver_lacks = is_giver && walk.met_others_lacking;
        let overflowed = self.take_in(core, cx, span, items);
        self.acquisitions[index].overflowed |= overflowed;
        if goes_on.is_some() && !is_stuck {
            self.ask(core, cx, token);
        } else if giver_lacks {
            self.turn_to_places(core, cx, index);
        } else {
            self.end_walk(core, cx, token);
        }
    }

    /// Keeps the copies that belong into `span`. Tells whether there was no room for one.
    fn take_in(&mut self, core: &mut Core, cx: &mut Context<'_>, span: Span, items: &[Item]) -> bool {
        let (places, mut overflowed) = (self.places, false);
        for item in items {
            for place in places.of(item.key).filter(|place| span.contains(places.ring, *place)) {
                overflowed |= self.keep(core, cx, place, item, Room::ForCopies) == Merged::Full;
            }
        }
        overflowed
    }

    /// A walk is at its end; where it was the last, the pass is.
    fn end_walk(&mut self, core: &mut Core, cx: &mut Context<'_>, token: u64) {
        let Some((index, acquisition, place)) = self.find_walk(token) else { return };
        acquisition.walks[place].state = WalkState::Done;
        let walks = &acquisition.walks;
        if walks.iter().any(|walk| walk.state == WalkState::Asking) {
            return;
        }
        let one_is_whole = walks.iter().any(|walk| !walk.met_others_lacking && !walk.met_own_lacking);
        let nobody_knows_more = walks.iter().all(|walk| !walk.met_others_lacking);
        match acquisition.from {
            Source::Places { pass } if !one_is_whole && !nobody_knows_more && pass + 1 < PASSES_MAX => {
                let token = core.next_token();
                let pause = core.jittered(PASS_PAUSE * (1 << pass));
                acquisition.from = Source::Pausing { pass, token };
                acquisition.walks.clear();
                core.set_service_timer(cx.now + pause, token);
            }
            from => {
                let Acquisition { span, overflowed, .. } = self.acquisitions.remove(index);
                if let (Source::Giver { giver, .. }, false) = (from, overflowed) {
                    tell(core, cx, giver, Talk::Taken(span));
                }
            }
        }
    }

    fn cancel_walks(&mut self, core: &mut Core, index: usize) {
        let Some(acquisition) = self.acquisitions.get_mut(index) else { return };
        for walk in acquisition.walks.drain(..) {
            core.cancel_service_timer(walk.due, walk.token);
        }
    }

    fn drop_acquisitions(&mut self, core: &mut Core) {
        for index in 0..self.acquisitions.len() {
            self.cancel_walks(core, index);
        }
        self.acquisitions.clear();
    }
}

impl Acquisition {
    pub(super) fn digest(&self, me: Id, digest: &mut Digest) {
        let Acquisition { span, from, walks, overflowed } = self;
        digest.span(*span);
        digest.plain(&(std::mem::discriminant(from), overflowed));
        match from {
            Source::Giver { giver, gives_up_at } => {
                digest.contact(*giver);
                digest.time(*gives_up_at);
            }
            Source::Places { pass } => digest.plain(pass),
            Source::Pausing { pass, token } => {
                digest.plain(pass);
                digest.token(me, *token);
            }
        }
        digest.ordered(walks, |digest, walk| {
            let Walk { token, span, cursor, state, attempts, due, met_others_lacking, met_own_lacking } =
                walk;
            digest.token(me, *token);
            digest.span(*span);
            digest.cursor(*cursor);
            digest.plain(&(state, attempts, met_others_lacking, met_own_lacking));
            digest.time(*due);
        });
    }
}

/// Who handed a range over last, as long as it may be asked.
pub(super) fn digest_giver(core: &Core, digest: &mut Digest) {
    let until = |since: Time| since + GIVER_KEPT;
    let giver = core.giver.filter(|(_, since)| digest.is_ahead(until(*since)));
    digest.ordered(giver, |digest, (giver, since)| {
        digest.contact(giver);
        digest.time(until(since));
    });
}
