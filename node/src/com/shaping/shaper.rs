//! What becomes of each message of a node whose links are shaped.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rand_pcg::Pcg32;

use super::draw::{delay_us, hits};
use super::{Cut, LinkShape, ShapeRules};
use crate::com::limits::{SHAPED_BYTES_MAX, SHAPED_LINK_BYTES_MAX, SHAPED_MESSAGE_BYTES};
use crate::id::Id;
use crate::message::Contact;
use crate::time::Time;

/// Sets a shaper's randomness apart from what else is drawn from its node's seed.
const STREAM: u64 = 0x5348_4150;

/// Decides about each message that a node sends to nodes which its rules name, and holds those that leave later. It knows no
/// clock and no socket. Messages to one node keep their order.
#[derive(Debug)]
pub struct Shaper {
    random: Pcg32,
    shapes: HashMap<Id, LinkShape>,
    /// Links on which something waits or has waited, or was sent at a limited rate.
    links: HashMap<Id, LinkClock>,
    waiting: BTreeMap<(Time, u64), Departure>,
    waiting_bytes: usize,
    /// Counts the messages that have waited: those that leave at one time leave in order.
    serial: u64,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It leaves at once.
    Leaves,
    /// It leaves then: to be given to [`Shaper::hold`].
    Waits(Time),
    /// It is lost, by chance.
    Lost,
    /// It is lost: the way is cut.
    Cut,
    /// It is lost: too much waits already.
    Overflow,
}

/// A message that leaves later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// To whom.
    pub to: Contact,
    /// Its frame.
    pub frame: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LinkClock {
    /// When the last message will have been written at the link's rate, in nanoseconds: many messages take less than a
    /// microsecond.
    busy_until_ns: u64,
    /// When the last message leaves.
    last: Time,
    waiting_bytes: usize,
}

impl Shaper {
    /// A shaper without rules; `seed` is all its randomness.
    pub fn new(seed: u64) -> Shaper {
        Shaper {
            random: Pcg32::new(seed, STREAM),
            shapes: HashMap::new(),
            links: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            serial: 0,
        }
    }

    /// Puts `rules` in the place of those that stood, and tells how many messages that waited were lost to cuts. What waits
    /// on a link that is shaped otherwise now, or not at all, is due at once: to be fetched by [`Shaper::depart`] before
    /// anything else is sent.
    pub fn set(&mut self, now: Time, rules: &ShapeRules) -> u64 {
        let before = std::mem::take(&mut self.shapes);
        for (ids, shape) in rules {
            self.shapes.extend(ids.iter().map(|id| (*id, *shape)));
        }
        self.shapes.retain(|_, shape| *shape != LinkShape::default());
        let mut cut = 0;
        for ((at, serial), departure) in std::mem::take(&mut self.waiting) {
            let id = departure.to.id;
            let shape = self.shapes.get(&id);
            if shape.is_some_and(|shape| shape.cut.is_out()) {
                self.let_go(&departure);
                cut += 1;
                continue;
            }
            let due = if shape == before.get(&id) { at } else { at.min(now) };
            self.waiting.insert((due, serial), departure);
        }
        let shapes = &self.shapes;
        self.links.retain(|id, link| {
            let same = shapes.get(id) == before.get(id);
            if !same {
                *link = LinkClock { waiting_bytes: link.waiting_bytes, ..LinkClock::default() };
            }
            same || link.waiting_bytes > 0
        });
        cut
    }

    /// Whether any link is shaped.
    pub fn is_shaping(&self) -> bool {
        !self.shapes.is_empty()
    }

    /// What is done to the messages to a node, if anything is.
    pub fn shape(&self, to: Id) -> Option<LinkShape> {
        self.shapes.get(&to).copied()
    }

    /// Whether what comes from a node gets here.
    pub fn hears(&self, from: Id) -> bool {
        !self.shapes.get(&from).is_some_and(|shape| shape.cut.is_in())
    }

    /// Whether a link to a node can be made.
    pub fn reaches(&self, id: Id) -> bool {
        self.shapes.get(&id).is_none_or(|shape| shape.cut != Cut::Both)
    }

    /// Draws what becomes of a message whose frame has so many bytes. `now` never goes back.
    pub fn decide(&mut self, now: Time, to: Id, bytes: usize) -> Fate {
        let Some(shape) = self.shapes.get(&to) else { return Fate::Leaves };
        if shape.cut.is_out() {
            return Fate::Cut;
        }
        if hits(shape.loss_ppm, &mut self.random) {
            return Fate::Lost;
        }
        let delay = Duration::from_micros(delay_us(shape, &mut self.random));
        let mut link = self.links.get(&to).copied().unwrap_or_default();
        if link.waiting_bytes >= SHAPED_LINK_BYTES_MAX || self.waiting_bytes >= SHAPED_BYTES_MAX {
            return Fate::Overflow;
        }
        let mut written = now;
        if shape.bytes_per_second > 0 {
            let now_ns = now.as_micros().saturating_mul(1000);
            let takes_ns = u128::from(bytes as u64) * 1_000_000_000 / u128::from(shape.bytes_per_second);
            let takes_ns = u64::try_from(takes_ns).unwrap_or(u64::MAX);
            link.busy_until_ns = link.busy_until_ns.max(now_ns).saturating_add(takes_ns);
            written = Time::from_micros(link.busy_until_ns.div_ceil(1000)).max(now);
        }
        link.last = link.last.max(written + delay);
        let leaves = link.last;
        if leaves > now || shape.bytes_per_second > 0 {
            self.links.insert(to, link);
        }
        if leaves > now { Fate::Waits(leaves) } else { Fate::Leaves }
    }

    /// Holds a message that was decided to leave at `until`.
    pub fn hold(&mut self, until: Time, departure: Departure) {
        let bytes = departure.frame.len() + SHAPED_MESSAGE_BYTES;
        self.waiting_bytes += bytes;
        self.links.entry(departure.to.id).or_default().waiting_bytes += bytes;
        self.waiting.insert((until, self.serial), departure);
        self.serial += 1;
    }

    /// When the next message leaves.
    pub fn deadline(&self) -> Option<Time> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next message that has come to leave.
    pub fn depart(&mut self, now: Time) -> Option<Departure> {
        let next = self.waiting.first_entry().filter(|next| next.key().0 <= now)?;
        let departure = next.remove();
        self.let_go(&departure);
        Some(departure)
    }

    /// Forgets all rules and all that waits.
    pub fn clear(&mut self) {
        (self.shapes, self.links) = (HashMap::new(), HashMap::new());
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// A message waits no more.
    fn let_go(&mut self, departure: &Departure) {
        let bytes = departure.frame.len() + SHAPED_MESSAGE_BYTES;
        self.waiting_bytes -= bytes;
        let id = departure.to.id;
        if let Some(link) = self.links.get_mut(&id) {
            link.waiting_bytes -= bytes;
            if link.waiting_bytes == 0 && !self.shapes.contains_key(&id) {
                self.links.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Distribution;
    use super::*;

    const MILLISECOND: u64 = 1000;
    const SECOND: u64 = 1_000_000;

    fn contact(id: u64) -> Contact {
        Contact { id: Id(id), access_point: "p2ps://127.0.0.1:1".parse().unwrap(), incarnation: 1 }
    }

    fn shaper(shape: LinkShape) -> Shaper {
        let mut shaper = Shaper::new(1);
        shaper.set(Time::ZERO, &[(vec![Id(1), Id(2)], shape)]);
        shaper
    }

    fn at(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    /// Sends a frame of `bytes` that begins with `number`; when it leaves, if it does.
    fn send(shaper: &mut Shaper, now_us: u64, to: u64, number: u32, bytes: usize) -> Result<u64, Fate> {
        match shaper.decide(at(now_us), Id(to), bytes) {
            Fate::Leaves => Ok(now_us),
            Fate::Waits(until) => {
                let mut frame = number.to_le_bytes().to_vec();
                frame.resize(bytes, 0);
                shaper.hold(until, Departure { to: contact(to), frame });
                Ok(until.as_micros())
            }
            fate => Err(fate),
        }
    }

    /// The numbers of the messages that have left by `now_us`.
    fn left(shaper: &mut Shaper, now_us: u64) -> Vec<u32> {
        let departures = std::iter::from_fn(|| shaper.depart(at(now_us)));
        departures.map(|departure| u32::from_le_bytes(*departure.frame.first_chunk().unwrap())).collect()
    }

    #[test]
    fn messages_leave_after_the_latency_and_not_before() {
        let mut shaper = shaper(LinkShape { latency_us: 50 * MILLISECOND, ..LinkShape::default() });
        assert_eq!(send(&mut shaper, 0, 1, 0, 10), Ok(50 * MILLISECOND));
        assert_eq!(send(&mut shaper, 20 * MILLISECOND, 2, 1, 10), Ok(70 * MILLISECOND));
        assert_eq!(send(&mut shaper, 20 * MILLISECOND, 3, 2, 10), Ok(20 * MILLISECOND), "no rule names it");
        assert_eq!(shaper.deadline(), Some(at(50 * MILLISECOND)));
        assert!(left(&mut shaper, 50 * MILLISECOND - 1).is_empty());
        assert_eq!(left(&mut shaper, 50 * MILLISECOND), [0]);
        assert_eq!(left(&mut shaper, SECOND), [1]);
        assert_eq!((shaper.deadline(), shaper.waiting_bytes), (None, 0));
    }

    #[test]
    fn order_is_kept_on_each_link_whatever_the_jitter() {
        for distribution in
            [Distribution::Uniform, Distribution::Normal, Distribution::LogNormal, Distribution::Pareto]
        {
            let jitter = LinkShape {
                latency_us: 20 * MILLISECOND,
                jitter_us: 20 * MILLISECOND,
                distribution,
                ..LinkShape::default()
            };
            let mut shaper = shaper(jitter);
            let mut arrived = Vec::new();
            for number in 0..1000 {
                let now_us = u64::from(number) * MILLISECOND;
                if send(&mut shaper, now_us, 1, number, 10) == Ok(now_us) {
                    arrived.push(number);
                }
                arrived.extend(left(&mut shaper, now_us));
            }
            arrived.extend(left(&mut shaper, 1000 * SECOND));
            assert_eq!(arrived, (0..1000).collect::<Vec<_>>(), "{distribution:?}");
        }
    }

    #[test]
    fn spaced_messages_have_the_jitters_mean_latency() {
        let shape =
            LinkShape { latency_us: 100 * MILLISECOND, jitter_us: 50 * MILLISECOND, ..LinkShape::default() };
        let mut shaper = shaper(shape);
        let total_us: u64 = (0..10_000)
            .map(|number| {
                let now_us = u64::from(number) * SECOND;
                let delay_us = send(&mut shaper, now_us, 1, number, 10).unwrap() - now_us;
                assert!((50 * MILLISECOND..=150 * MILLISECOND).contains(&delay_us));
                left(&mut shaper, now_us + SECOND / 2);
                delay_us
            })
            .sum();
        assert!((total_us / 10_000).abs_diff(100 * MILLISECOND) < MILLISECOND, "{total_us}");
    }

    #[test]
    fn a_share_of_the_messages_is_lost() {
        let mut shaper = shaper(LinkShape { loss_ppm: 300_000, ..LinkShape::default() });
        let lost =
            (0..100_000).filter(|number| send(&mut shaper, 0, 1, *number, 10) == Err(Fate::Lost)).count();
        assert!(lost.abs_diff(30_000) < 500, "{lost}");
        assert!(shaper.links.is_empty(), "what is not delayed is not kept track of");
    }

    #[test]
    fn a_link_carries_its_bandwidth_and_no_more_also_of_small_messages() {
        for (bytes, rate) in [(1000, 10_000), (30, 40_000_000)] {
            let mut shaper = shaper(LinkShape { bytes_per_second: rate, ..LinkShape::default() });
            let per_link = 2000;
            for to in [1, 2] {
                let mut last_us = 0;
                for number in 0..per_link {
                    last_us = send(&mut shaper, 0, to, number, bytes).unwrap();
                }
                let expected_us = (u64::from(per_link) * bytes as u64 * SECOND).div_ceil(rate);
                assert_eq!(last_us, expected_us, "the links do not share it");
            }
        }
    }

    #[test]
    fn an_idle_link_saves_no_bandwidth_up() {
        let mut shaper = shaper(LinkShape { bytes_per_second: 1000, ..LinkShape::default() });
        assert_eq!(send(&mut shaper, 0, 1, 0, 100), Ok(SECOND / 10));
        assert_eq!(send(&mut shaper, 9 * SECOND, 1, 1, 100), Ok(9 * SECOND + SECOND / 10));
        assert_eq!(send(&mut shaper, 9 * SECOND, 1, 2, 100), Ok(9 * SECOND + SECOND / 5));
    }

    #[test]
    fn what_waits_is_bounded_on_each_link_and_in_all() {
        let slow = LinkShape { latency_us: SECOND, ..LinkShape::default() };
        let mut shaper = shaper(slow);
        let ids = (0..20).map(Id).collect();
        shaper.set(Time::ZERO, &[(ids, slow)]);
        let frame = 1 << 16;
        for to in 0..20 {
            while send(&mut shaper, 0, to, 0, frame).is_ok() {
                assert!(shaper.links[&Id(to)].waiting_bytes < SHAPED_LINK_BYTES_MAX + 2 * frame);
            }
            assert_eq!(send(&mut shaper, 0, to, 0, 1), Err(Fate::Overflow));
            assert!(shaper.waiting_bytes < SHAPED_BYTES_MAX + 2 * frame);
        }
        assert!(shaper.links.len() < 20, "the node's bound came before that of the last links");
        assert!(left(&mut shaper, SECOND).len() * frame > SHAPED_BYTES_MAX / 2);
        assert_eq!(send(&mut shaper, SECOND, 1, 0, frame), Ok(2 * SECOND), "there is room again");
    }

    #[test]
    fn cuts_have_their_directions() {
        for (cut, fate, hears, reaches) in [
            (Cut::None, Ok(5), true, true),
            (Cut::Out, Err(Fate::Cut), true, true),
            (Cut::In, Ok(5), false, true),
            (Cut::Both, Err(Fate::Cut), false, false),
        ] {
            // Latency or not, what is cut is cut.
            let mut shaper = shaper(LinkShape { cut, loss_ppm: 0, ..LinkShape::default() });
            assert_eq!(send(&mut shaper, 5, 1, 0, 10), fate);
            assert_eq!((shaper.hears(Id(1)), shaper.reaches(Id(1))), (hears, reaches), "{cut:?}");
            assert!(shaper.hears(Id(3)) && shaper.reaches(Id(3)));
            assert_eq!(shaper.is_shaping(), cut != Cut::None);
        }
    }

    #[test]
    fn a_healed_link_goes_on_with_what_waited_and_the_others_wait_on() {
        let slow = LinkShape { latency_us: SECOND, ..LinkShape::default() };
        let mut shaper = shaper(slow);
        for number in 0..3 {
            send(&mut shaper, 0, 1, number, 10).unwrap();
        }
        send(&mut shaper, 0, 2, 3, 10).unwrap();
        assert_eq!(shaper.set(at(10), &[(vec![Id(2)], slow)]), 0);
        assert_eq!(left(&mut shaper, 10), [0, 1, 2]);
        assert_eq!(send(&mut shaper, 10, 1, 4, 10), Ok(10));
        assert_eq!(shaper.deadline(), Some(at(SECOND)));
        let quick = LinkShape { latency_us: 1, ..LinkShape::default() };
        shaper.set(at(20), &[(vec![Id(2)], quick)]);
        assert_eq!(left(&mut shaper, 20), [3], "another shape takes nothing over");
        assert_eq!(send(&mut shaper, 20, 2, 5, 10), Ok(21));
        assert_eq!(left(&mut shaper, 21), [5]);
        shaper.set(at(SECOND), &[]);
        assert!(!shaper.is_shaping() && shaper.links.is_empty() && shaper.waiting_bytes == 0);
    }

    #[test]
    fn a_cut_takes_what_waits() {
        let mut shaper = shaper(LinkShape { latency_us: SECOND, ..LinkShape::default() });
        send(&mut shaper, 0, 1, 0, 10).unwrap();
        send(&mut shaper, 0, 2, 1, 10).unwrap();
        let cut = LinkShape { cut: Cut::Both, ..LinkShape::default() };
        assert_eq!(shaper.set(at(1), &[(vec![Id(1)], cut)]), 1);
        assert_eq!(left(&mut shaper, 1), [1]);
        assert_eq!(shaper.waiting_bytes, 0);
    }

    #[test]
    fn the_last_rule_that_names_a_node_counts_and_the_same_seed_draws_the_same() {
        let slow = LinkShape { latency_us: SECOND, jitter_us: SECOND / 2, ..LinkShape::default() };
        let cut = LinkShape { cut: Cut::Out, ..LinkShape::default() };
        let rules = [(vec![Id(1), Id(2)], slow), (vec![Id(2)], cut)];
        let run = |seed| {
            let mut shaper = Shaper::new(seed);
            shaper.set(Time::ZERO, &rules);
            assert_eq!(shaper.decide(at(0), Id(2), 10), Fate::Cut);
            (0..20).map(|step| send(&mut shaper, step * 10 * SECOND, 1, 0, 10).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
