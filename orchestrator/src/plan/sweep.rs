//! Sweeps: one plan, run at every combination of some of its values, and repeated with other seeds.

use std::path::Path;

use super::diagnose::{PlanError, Problem, Refusal};
use super::document::{Document, Value, ValueKind};
use super::{Plan, check, decode, read_text};

/// The most points of a sweep, with their repetitions: each is a run.
pub const SWEEP_RUNS_MAX: usize = 1000;

/// A plan, or as many as its `sweep:` makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// What is swept, as paths into the plan: `nodes`, `network.geometry`.
    pub paths: Vec<String>,
    /// Every combination, the first path's values changing last. One without settings where nothing is swept.
    pub points: Vec<SweepPoint>,
    /// How often each is run, each time with the seed after the last one.
    pub repeat: u32,
}

/// A combination of values.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepPoint {
    /// The value of each path, as the plan wrote it.
    pub values: Vec<String>,
    /// The plan with these values.
    pub plan: Plan,
}

impl Sweep {
    /// Whether there is one run only.
    pub fn is_single(&self) -> bool {
        self.paths.is_empty() && self.repeat == 1
    }

    /// The plan of a run: of a point, repeated for the `time`th time from 0 on.
    pub fn plan(&self, point: &SweepPoint, time: u32) -> Plan {
        Plan { seed: point.plan.seed.wrapping_add(u64::from(time)), ..point.plan.clone() }
    }
}

/// Reads and checks a plan with its sweep, with `overrides` laid over it.
///
/// # Errors
/// [`PlanError::Unreadable`] where the file cannot be read, else what [`parse_sweep`] says.
pub fn load_sweep(path: &Path, overrides: &[String]) -> Result<Sweep, PlanError> {
    parse_sweep(&path.display().to_string(), &read_text(path)?, overrides)
}

/// Checks a plan's text with its sweep. All its points are checked before any is run.
///
/// # Errors
/// [`PlanError::Refused`] with every mistake that can be found at once, of the first point that has one.
pub fn parse_sweep(name: &str, text: &str, overrides: &[String]) -> Result<Sweep, PlanError> {
    let one = |problem| PlanError::Refused(vec![problem]);
    let mut document = Document::read(name, text, overrides).map_err(one)?;
    let sweep = document.take("sweep");
    let repeat = document.take("repeat");
    let repeat = repeat.map_or(Ok(1), |value| read_repeat(&document, &value)).map_err(one)?;
    let axes = sweep.map_or(Ok(Vec::new()), |value| read_axes(&document, value)).map_err(one)?;
    let count = axes.iter().map(|(_, values)| values.len()).try_fold(repeat as usize, usize::checked_mul);
    if count.is_none_or(|count| count > SWEEP_RUNS_MAX) {
        let hint = Some("sweep fewer values, or repeat less".to_owned());
        let message = format!("a sweep has at most {SWEEP_RUNS_MAX} runs");
        return Err(one(Problem { place: None, message, hint }));
    }
    let mut combinations: Vec<Vec<Value>> = vec![Vec::new()];
    for (_, values) in &axes {
        let longer = combinations.iter().flat_map(|combination| {
            values.iter().map(|value| combination.iter().chain([value]).cloned().collect())
        });
        combinations = longer.collect();
    }
    let paths: Vec<String> = axes.into_iter().map(|(path, _)| path).collect();
    let mut points = Vec::new();
    for combination in combinations {
        let mut document = document.clone();
        let values = combination.iter().map(value_text).collect();
        for (path, value) in paths.iter().zip(combination) {
            document.put(path, value).map_err(one)?;
        }
        let raw = decode::decode(&document).map_err(one)?;
        let plan = check::check(raw, &document).map_err(PlanError::Refused)?;
        points.push(SweepPoint { values, plan });
    }
    Ok(Sweep { paths, points, repeat })
}

fn read_repeat(document: &Document, value: &Value) -> Result<u32, Problem> {
    let refusal = || Refusal::new("`repeat` is how often each point is run", "write it like `repeat: 5`");
    let refused = || refusal().at(document.place(value.index));
    let ValueKind::Scalar(text) = &value.kind else { return Err(refused()) };
    text.parse().ok().filter(|repeat| *repeat >= 1).ok_or_else(refused)
}

/// Each path with its values.
fn read_axes(document: &Document, value: Value) -> Result<Vec<(String, Vec<Value>)>, Problem> {
    let hint = "write it like `sweep: {nodes: [100, 200]}`: each line a path into the plan, with a list of its values";
    let refused = |index, message: &str| Err(Refusal::new(message, hint).at(document.place(index)));
    let ValueKind::Map(entries) = value.kind else {
        return refused(value.index, "`sweep` says which values are swept");
    };
    let mut axes = Vec::new();
    for (key, value) in entries {
        match value.kind {
            ValueKind::List(values) if !values.is_empty() => axes.push((key.name, values)),
            _ => return refused(value.index, &format!("`sweep.{}` is no list of values", key.name)),
        }
    }
    Ok(axes)
}

/// A value in one line, as YAML.
fn value_text(value: &Value) -> String {
    match &value.kind {
        ValueKind::Null => "null".to_owned(),
        ValueKind::Scalar(text) => text.clone(),
        ValueKind::List(items) => {
            format!("[{}]", items.iter().map(value_text).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Map(entries) => {
            let entry =
                |(key, value): &(super::document::Key, Value)| format!("{}: {}", key.name, value_text(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(rest: &str) -> Result<Sweep, String> {
        let text = format!("name: s\nnodes: 10\nseed: 5\n{rest}");
        parse_sweep("s.yaml", &text, &[]).map_err(|error| match error {
            PlanError::Refused(problems) => problems[0].message.clone(),
            other => other.to_string(),
        })
    }

    #[test]
    fn every_combination_is_a_plan() {
        let sweep = sweep(
            "sweep:\n  nodes: [10, 20]\n  network.geometry: [chord, {dks: {k: 4}}]\nrepeat: 3\nduration: 60s",
        );
        let sweep = sweep.unwrap();
        let values: Vec<Vec<String>> = sweep.points.iter().map(|point| point.values.clone()).collect();
        assert_eq!(
            values,
            [["10", "chord"], ["10", "{dks: {k: 4}}"], ["20", "chord"], ["20", "{dks: {k: 4}}"]]
        );
        assert_eq!(sweep.points[2].plan.nodes, 20);
        let last = sweep.plan(&sweep.points[3], 2);
        assert_eq!((last.nodes, last.net.geometry().arity(), last.seed), (20, 4, 7));
    }

    #[test]
    fn a_plan_without_a_sweep_is_one_point() {
        let sweep = sweep("").unwrap();
        assert!(sweep.is_single() && sweep.points.len() == 1);
        assert_eq!(
            sweep.points[0].plan,
            super::super::parse("s.yaml", "name: s\nnodes: 10\nseed: 5", &[]).unwrap()
        );
    }

    #[test]
    fn mistakes_of_a_sweep_are_named() {
        assert!(sweep("sweep: {nodez: [1]}").unwrap_err().contains("unknown key `nodez`"));
        assert!(sweep("sweep: {nodes: 5}").unwrap_err().contains("`sweep.nodes` is no list"));
        assert!(sweep("sweep: {nodes: [5, x]}").unwrap_err().contains("`x`"));
        assert!(sweep("repeat: 0").unwrap_err().contains("how often"));
        assert!(sweep("repeat: 1001").unwrap_err().contains("at most 1000 runs"));
    }
}
