//! What each step of the timeline says, for itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use p2ps::com::shaping::{Distribution as Shaped, LinkShape};

use super::{At, Checker};
use crate::plan::churn::{Churn, End, Preset};
use crate::plan::decode::{Field, OneOrMore};
use crate::plan::distribution::{Distribution, Size};
use crate::plan::document::ValueIndex;
use crate::plan::resolved::event_text;
use crate::plan::schema::{
    RawChurn, RawDegrade, RawDistribution, RawEnd, RawHeal, RawPreset, RawShaped, RawSide, RawSized, RawStep,
    RawTarget, RawTrace, RawTraceFormat,
};
use crate::plan::targets::{Links, Target};
use crate::plan::trace::{Format, Playing, Trace};
use crate::plan::units::{ByteRate, FileName, Number, Share, ShareRate};
use crate::plan::{Amount, STEPS_MAX, Step, StepEvent};

/// The shapes that distributions may have.
const SHAPES: std::ops::RangeInclusive<f64> = 0.1..=100.0;

/// The shapes that Pareto distributions may have: nearer to 1 the mean is made by what never happens in a run.
const PARETO_SHAPES: std::ops::RangeInclusive<f64> = 1.01..=100.0;

/// The standard deviations that a log-normal distribution's logarithm may have.
const SIGMAS: std::ops::RangeInclusive<f64> = 0.01..=5.0;

/// How much faster time may go.
const SPEED_UPS: std::ops::RangeInclusive<f64> = 0.001..=1e6;

/// The least mean of sessions and down times.
const MEAN_MIN: Duration = Duration::from_millis(100);

/// The most latency and jitter of degraded links.
const LATENCY_MAX: Duration = Duration::from_secs(60);

impl Checker<'_> {
    /// The steps in time order; steps of one time stay in the plan's order.
    pub(super) fn timeline(&mut self, raw: &[RawStep]) -> Option<Vec<At<Step>>> {
        if let Some(step) = raw.get(STEPS_MAX) {
            let message = format!("a timeline has at most {STEPS_MAX} steps, this one has {}", raw.len());
            self.problem(step.at.as_ref().map(|field| field.index), message, None);
            return None;
        }
        let steps: Vec<Option<At<Step>>> =
            raw.iter().zip(0..).map(|(step, number)| self.step(step, number)).collect();
        let mut steps: Vec<At<Step>> = steps.into_iter().collect::<Option<_>>()?;
        steps.sort_by_key(|At(step, _)| step.at);
        Some(steps)
    }

    fn step(&mut self, raw: &RawStep, number: usize) -> Option<At<Step>> {
        let said = things_said(raw);
        let field = match (&raw.at, &raw.from) {
            (Some(field), None) | (None, Some(field)) => field,
            (Some(_), Some(from)) => {
                let message = "a step has one beginning, but this one has two";
                return self.refuse(from.index, message, "keep at or from");
            }
            (None, None) => {
                let message = format!("step {number} (from 0) of the timeline does not say when");
                let hint = "begin it with at, as in {at: 30s, kill: 10%}";
                self.problem(said.iter().find_map(|(_, index, _)| *index), message, Some(hint.to_owned()));
                return None;
            }
        };
        let index = field.index;
        let at = self.read(field);
        let (name, thing, index) = match said.as_slice() {
            [] => {
                let hint = "add join, leave, kill, restart, pause, partition, degrade, heal, churn or trace, as in \
                    {at: 30s, kill: 10%}";
                return self.refuse(index, "this step does nothing", hint);
            }
            [(name, field_index, thing)] => (*name, *thing, field_index.unwrap_or(index)),
            [(first, ..), (second, field_index, _), ..] => {
                let message = format!("a step does one thing, but this one says both {first} and {second}");
                let hint = "write one step for each, with the same `at`";
                return self.refuse(field_index.unwrap_or(index), message, hint);
            }
        };
        self.only_what_belongs(raw, name);
        let event = self.event(raw, thing, At(at, index));
        let (at, event) = (at?, event?);
        let text = event_text(at, &event);
        Some(At(Step { at, event, text }, index))
    }

    fn event(
        &mut self,
        raw: &RawStep,
        thing: Thing<'_>,
        At(at, index): At<Option<Duration>>,
    ) -> Option<StepEvent> {
        let at_or_start = at.unwrap_or_default();
        let event = match thing {
            Thing::Join(field) => StepEvent::Join(self.read(field)?),
            Thing::Target(target, event) => {
                let can_have_roles = raw.restart.is_none();
                event(self.target(target, can_have_roles, index)?)
            }
            Thing::Pause(target) => {
                let target = self.target(target, true, index);
                let until = self.until(at_or_start, raw.length.as_ref());
                StepEvent::Pause { target: target?, until: until? }
            }
            Thing::Partition(sides) => {
                let sides = self.sides(sides, index);
                let one_way = self.read_or(raw.one_way.as_ref(), false);
                let until = self.until(at_or_start, raw.heal_after.as_ref());
                StepEvent::Partition { sides: sides?, one_way: one_way?, until: until? }
            }
            Thing::Degrade(degrade) => {
                let links = self.links(raw, degrade, index);
                let shape = self.shape(degrade, index);
                let until = self.until(at_or_start, raw.length.as_ref());
                StepEvent::Degrade { links: links?, shape: shape?, until: until? }
            }
            Thing::Heal(RawHeal::All) => StepEvent::Heal,
            Thing::Churn(churn) => {
                let churn = self.churn(churn, index);
                let Some(to) = &raw.to else {
                    return self.refuse(
                        index,
                        "churn needs an end",
                        "add `to`, as in {from: 30s, to: 5m, churn: …}",
                    );
                };
                let until = self.read(to)?;
                if at.is_some_and(|at| until <= at) {
                    return self.refuse(to.index, "it ends before it begins", "`to` is a time after `from`");
                }
                StepEvent::Churn { churn: churn?, until }
            }
            Thing::Trace(trace) => StepEvent::Trace(self.trace(trace)?),
        };
        Some(event)
    }

    /// A key that means nothing to what the step does is a mistake.
    fn only_what_belongs(&mut self, raw: &RawStep, name: &str) {
        let index = |field: &Option<Field<Duration>>| field.as_ref().map(|field| field.index);
        let keys = [
            ("to", index(&raw.to), &["churn"][..]),
            ("for", index(&raw.length), &["pause", "degrade"]),
            ("heal_after", index(&raw.heal_after), &["partition"]),
            ("one_way", raw.one_way.as_ref().map(|field| field.index), &["partition", "degrade"]),
        ];
        for (key, index, of) in keys {
            if let Some(index) = index.filter(|_| !of.contains(&name)) {
                let message = format!("{name} has no `{key}`");
                self.problem(Some(index), message, Some(format!("`{key}` belongs to {}", of.join(" and "))));
            }
        }
    }

    /// `Some(None)`: until the run's end.
    fn until(&mut self, at: Duration, length: Option<&Field<Duration>>) -> Option<Option<Duration>> {
        let Some(field) = length else { return Some(None) };
        let length = self.read(field)?;
        if length.is_zero() {
            return self.refuse(
                field.index,
                "no length of time: nothing would happen",
                "write it like `30s`",
            );
        }
        Some(Some(at + length))
    }

    /// The links that a step degrades: all that some nodes send, or those between two sides.
    fn links(&mut self, step: &RawStep, raw: &RawDegrade, index: ValueIndex) -> Option<Links> {
        let one_way = self.read_or(step.one_way.as_ref(), false)?;
        match (&raw.nodes, &raw.between, &step.one_way) {
            (Some(_), Some(_), _) => {
                let hint = "keep `nodes` (to everybody) or `between` (to each other)";
                self.refuse(index, "links are said in two ways", hint)
            }
            (None, Some(sides), _) => self.between(sides, one_way, index),
            (_, None, Some(field)) => {
                let hint = "say two sides, such as between: [edge, core], or leave it out";
                self.refuse(field.index, "only links between two sides are one way", hint)
            }
            (Some(target), None, None) => self.target(target, true, index).map(Links::Of),
            (None, None, None) => Some(Links::Of(Target::Some(Amount::Share(1.0)))),
        }
    }

    fn shape(&mut self, raw: &RawDegrade, index: ValueIndex) -> Option<LinkShape> {
        let latency = self.latency(raw.latency.as_ref());
        let jitter = self.latency(raw.jitter.as_ref());
        let loss = self.read_or(raw.loss.as_ref(), Share(0.0));
        let bandwidth = self.read_or(raw.bandwidth.as_ref(), ByteRate(0));
        let shape = LinkShape {
            latency_us: latency?.as_micros() as u64,
            jitter_us: jitter?.as_micros() as u64,
            distribution: match raw.distribution {
                None | Some(RawShaped::Uniform) => Shaped::Uniform,
                Some(RawShaped::Normal) => Shaped::Normal,
                Some(RawShaped::LogNormal) => Shaped::LogNormal,
                Some(RawShaped::Pareto) => Shaped::Pareto,
            },
            loss_ppm: (loss?.0 * 1e6).round() as u32,
            bytes_per_second: bandwidth?.0,
            ..LinkShape::default()
        };
        if (LinkShape { distribution: Shaped::Uniform, ..shape }) == LinkShape::default() {
            let hint = "add latency, jitter, loss or bandwidth, as in degrade: {nodes: 20%, latency: 100ms}";
            return self.refuse(index, "these links are as good as ever", hint);
        }
        Some(shape)
    }

    fn latency(&mut self, field: Option<&Field<Duration>>) -> Option<Duration> {
        let Some(field) = field else { return Some(Duration::ZERO) };
        let latency = self.read(field)?;
        if latency > LATENCY_MAX {
            return self.refuse(field.index, "longer than any message waits", "at most 1m");
        }
        Some(latency)
    }

    fn churn(&mut self, raw: &RawChurn, index: ValueIndex) -> Option<Churn> {
        let end = end(raw.end);
        let speed_up = self.read_number(raw.speed_up.as_ref(), &SPEED_UPS);
        let hint = "write `sessions` (and `downtime`), or `preset`, or `rate`";
        let lengths = match (&raw.sessions, &raw.preset, &raw.rate) {
            (Some(sessions), None, None) => {
                let sessions = self.distribution(sessions, index);
                let downtime = raw.downtime.as_ref().map(|downtime| self.distribution(downtime, index));
                match downtime {
                    None => (sessions?, None),
                    Some(downtime) => (sessions?, Some(downtime?)),
                }
            }
            (None, Some(preset), None) if raw.downtime.is_none() => self.preset(preset)?.lengths(),
            (None, None, Some(rate)) if raw.downtime.is_none() && raw.speed_up.is_none() => {
                let ShareRate { share, per } = self.read(rate)?;
                return Some(Churn::Rate { share, per, end });
            }
            (None, None, None) => {
                return self.refuse(index, "this churn does not say who comes and goes", hint);
            }
            _ => return self.refuse(index, "this churn says in two ways who comes and goes", hint),
        };
        let speed_up = speed_up?;
        let (sessions, downtime) =
            (faster(lengths.0, speed_up), lengths.1.map(|lengths| faster(lengths, speed_up)));
        let least = [Some(sessions), downtime].into_iter().flatten().map(|lengths| lengths.mean_seconds());
        if least.fold(f64::INFINITY, f64::min) < MEAN_MIN.as_secs_f64() {
            return self.refuse(index, "nobody can join and leave so fast", "take means of at least 100ms");
        }
        Some(Churn::Sessions { sessions, downtime, end })
    }

    fn preset(&mut self, raw: &RawPreset) -> Option<Preset> {
        Some(match raw {
            RawPreset::BittorrentRedhat => Preset::BittorrentRedhat,
            RawPreset::BittorrentDebian => Preset::BittorrentDebian,
            RawPreset::BittorrentFlatout => Preset::BittorrentFlatout,
            RawPreset::Kad => Preset::Kad,
            RawPreset::Rhea2004(raw) => Preset::Rhea2004(self.read(&raw.median)?),
            RawPreset::P2psim => Preset::P2psim,
            RawPreset::Ipfs2022 => Preset::Ipfs2022,
        })
    }

    fn distribution(&mut self, raw: &RawDistribution, index: ValueIndex) -> Option<Distribution> {
        Some(match raw {
            RawDistribution::Exponential(raw) => Distribution::Exponential { mean: self.read(&raw.mean)? },
            RawDistribution::Fixed(field) => Distribution::Fixed { length: self.read(field)? },
            RawDistribution::Weibull(raw) => {
                let (shape, size) = self.shaped(raw, &SHAPES)?;
                Distribution::Weibull { shape, size }
            }
            RawDistribution::Pareto(raw) => {
                let (shape, size) = self.shaped(raw, &PARETO_SHAPES)?;
                Distribution::Pareto { shape, size }
            }
            RawDistribution::LogNormal(raw) => {
                let sigma = self.read_number(Some(&raw.sigma), &SIGMAS);
                let size = self.size(raw.mean.as_ref(), raw.median.as_ref(), "median", index);
                Distribution::LogNormal { sigma: sigma?, size: size? }
            }
        })
    }

    fn shaped(&mut self, raw: &RawSized, shapes: &std::ops::RangeInclusive<f64>) -> Option<(f64, Size)> {
        let shape = self.read_number(Some(&raw.shape), shapes);
        let size = self.size(raw.mean.as_ref(), raw.scale.as_ref(), "scale", raw.shape.index);
        Some((shape?, size?))
    }

    fn size(
        &mut self,
        mean: Option<&Field<Duration>>,
        scale: Option<&Field<Duration>>,
        scale_name: &str,
        index: ValueIndex,
    ) -> Option<Size> {
        match (mean, scale) {
            (Some(mean), None) => self.read(mean).map(Size::Mean),
            (None, Some(scale)) => self.read(scale).map(Size::Scale),
            (None, None) => self.refuse(
                index,
                "this distribution has no size",
                format!("add its mean or its {scale_name}"),
            ),
            (Some(_), Some(scale)) => {
                let message = format!("the mean says what the {scale_name} is");
                self.refuse(scale.index, message, "keep one of them")
            }
        }
    }

    fn trace(&mut self, raw: &RawTrace) -> Option<Trace> {
        let speed_up = self.read_number(raw.speed_up.as_ref(), &SPEED_UPS);
        let (from, to) = raw.window.as_ref().map_or((None, None), |raw| (raw.from.as_ref(), raw.to.as_ref()));
        let (from, to) =
            (self.read_or(from, Duration::ZERO), to.map(|field| At(self.read(field), field.index)));
        let FileName(name) = self.read(&raw.file)?;
        let (speed_up, from) = (speed_up?, from?);
        let to = match to {
            None => None,
            Some(At(to, index)) if to.is_some_and(|to| to <= from) => {
                return self.refuse(index, "the window ends before it begins", "`to` is a time after `from`");
            }
            Some(At(to, _)) => Some(to?),
        };
        let format = match raw.format {
            RawTraceFormat::Avt => Format::Avt,
            RawTraceFormat::Splay => Format::Splay,
            RawTraceFormat::Oversim => Format::Oversim,
            RawTraceFormat::Csv => Format::Csv,
        };
        let playing = Playing { format, speed_up, from, to, end: end(raw.end) };
        match Trace::read(&self.beside_the_plan(&name, raw.file.index), Path::new(&name), playing) {
            Ok(trace) => Some(trace),
            Err(error) => self.refuse(
                raw.file.index,
                error.to_string(),
                "a file's name counts from the plan's directory",
            ),
        }
    }

    /// A file that is named in a plan counts from the plan's directory, in an override from the present one.
    pub(super) fn beside_the_plan(&self, name: &str, index: ValueIndex) -> PathBuf {
        let plan = self.document.place(index).filter(|place| !place.source.is_override);
        let directory = plan.and_then(|place| Path::new(&place.source.name).parent().map(Path::to_owned));
        let path = directory.unwrap_or_default().join(name);
        std::path::absolute(&path).unwrap_or(path)
    }

    fn read_number(
        &mut self,
        field: Option<&Field<Number>>,
        range: &std::ops::RangeInclusive<f64>,
    ) -> Option<f64> {
        let Some(field) = field else { return Some(1.0) };
        let Number(number) = self.read(field)?;
        if !range.contains(&number) {
            let message = format!("{number} is beyond what can be drawn");
            return self.refuse(field.index, message, format!("{} to {}", range.start(), range.end()));
        }
        Some(number)
    }
}

fn end(raw: Option<RawEnd>) -> End {
    match raw {
        None | Some(RawEnd::Kill) => End::Kill,
        Some(RawEnd::Leave) => End::Leave,
    }
}

/// The same with all lengths divided by `speed_up`.
fn faster(lengths: Distribution, speed_up: f64) -> Distribution {
    if speed_up == 1.0 {
        return lengths;
    }
    let less =
        |length: Duration| Duration::from_micros((length.as_secs_f64() * 1e6 / speed_up).round() as u64);
    let size = |size: Size| match size {
        Size::Mean(mean) => Size::Mean(less(mean)),
        Size::Scale(scale) => Size::Scale(less(scale)),
    };
    match lengths {
        Distribution::Exponential { mean } => Distribution::Exponential { mean: less(mean) },
        Distribution::Weibull { shape, size: of } => Distribution::Weibull { shape, size: size(of) },
        Distribution::Pareto { shape, size: of } => Distribution::Pareto { shape, size: size(of) },
        Distribution::LogNormal { sigma, size: of } => Distribution::LogNormal { sigma, size: size(of) },
        Distribution::Fixed { length } => Distribution::Fixed { length: less(length) },
    }
}

/// Something that a step does.
#[derive(Clone, Copy)]
enum Thing<'a> {
    Join(&'a Field<Amount>),
    Target(&'a RawTarget, fn(Target) -> StepEvent),
    Pause(&'a RawTarget),
    Partition(&'a [RawSide]),
    Degrade(&'a RawDegrade),
    Heal(&'a RawHeal),
    Churn(&'a RawChurn),
    Trace(&'a RawTrace),
}

/// Its key, its place where it is a scalar, and what it says.
type Said<'a> = (&'static str, Option<ValueIndex>, Thing<'a>);

/// A key with whom it says, and what is done to them.
type Targets<'a> = (&'static str, &'a Option<RawTarget>, fn(Target) -> StepEvent);

/// Everything that a step says: one thing, if it is right.
fn things_said(raw: &RawStep) -> Vec<Said<'_>> {
    let mut said: Vec<Said<'_>> = Vec::new();
    said.extend(raw.join.as_ref().map(|field| ("join", Some(field.index), Thing::Join(field))));
    let targets: [Targets<'_>; 3] = [
        ("leave", &raw.leave, StepEvent::Leave),
        ("kill", &raw.kill, StepEvent::Kill),
        ("restart", &raw.restart, StepEvent::Restart),
    ];
    said.extend(targets.into_iter().filter_map(|(name, target, event)| {
        target.as_ref().map(|target| (name, word(target), Thing::Target(target, event)))
    }));
    said.extend(raw.pause.as_ref().map(|target| ("pause", word(target), Thing::Pause(target))));
    said.extend(
        raw.partition
            .as_deref()
            .map(|sides| ("partition", sides.first().and_then(word), Thing::Partition(sides))),
    );
    said.extend(raw.degrade.as_ref().map(|raw| ("degrade", None, Thing::Degrade(raw))));
    said.extend(raw.heal.as_ref().map(|raw| ("heal", None, Thing::Heal(raw))));
    said.extend(raw.churn.as_ref().map(|raw| ("churn", None, Thing::Churn(raw))));
    said.extend(raw.trace.as_ref().map(|raw| ("trace", Some(raw.file.index), Thing::Trace(raw))));
    said
}

/// The place of what one word says.
fn word<U, L>(said: &OneOrMore<U, L>) -> Option<ValueIndex> {
    match said {
        OneOrMore::One(field) => Some(field.index),
        OneOrMore::More(_) => None,
    }
}
