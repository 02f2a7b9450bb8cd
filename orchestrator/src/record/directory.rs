//! Where a run's files are.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use p2ps::agent::protocol::NodeIndex;

use crate::plan::Plan;

use super::RecordError;

/// How many runs of one plan and seed may start within one second.
const SAME_SECOND_MAX: u32 = 1000;

/// The longest plan name in a path, in characters.
const NAME_CHARACTERS_MAX: usize = 100;

/// The directory of one run, `<root>/<plan>/<utc time>-<seed>/`, and the paths of all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Makes the directory of a run of `plan` that starts now, and `logs/` in it.
    ///
    /// # Errors
    /// [`RecordError::File`] where a directory cannot be made.
    pub fn create(root: &Path, plan: &Plan) -> Result<RunDirectory, RecordError> {
        RunDirectory::create_at(root, plan, Timestamp::now())
    }

    /// Makes the directory of a run at `path`, and `logs/` in it.
    ///
    /// # Errors
    /// [`RecordError::File`] where a directory cannot be made.
    pub fn create_as(path: PathBuf) -> Result<RunDirectory, RecordError> {
        let directory = RunDirectory { path };
        make(&directory.logs())?;
        Ok(directory)
    }

    /// Takes up the directory of a run that has been.
    ///
    /// # Errors
    /// [`RecordError::NoRunDirectory`] where there is no `plan.yaml` in it.
    pub fn open(path: &Path) -> Result<RunDirectory, RecordError> {
        let directory = RunDirectory { path: path.to_owned() };
        if directory.plan().is_file() {
            Ok(directory)
        } else {
            Err(RecordError::NoRunDirectory { path: path.to_owned(), expected: "plan.yaml" })
        }
    }

    fn create_at(root: &Path, plan: &Plan, start: Timestamp) -> Result<RunDirectory, RecordError> {
        let parent = root.join(path_name(&plan.name));
        make(&parent)?;
        let name = format!("{}-{}", start.strftime("%Y%m%dT%H%M%SZ"), plan.seed);
        let mut path = parent.join(&name);
        for attempt in 2..=SAME_SECOND_MAX {
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < SAME_SECOND_MAX => {
                    path = parent.join(format!("{name}-{attempt}"));
                }
                Err(source) => return Err(RecordError::File { doing: "create", path, source }),
                Ok(()) => break,
            }
        }
        let directory = RunDirectory { path };
        make(&directory.logs())?;
        Ok(directory)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The plan as it was written.
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.yaml")
    }

    /// The plan with every default filled in.
    pub fn resolved(&self) -> PathBuf {
        self.path.join("resolved.yaml")
    }

    /// What was planned, an action a line.
    pub fn schedule(&self) -> PathBuf {
        self.path.join("schedule.jsonl")
    }

    /// Versions, hosts, clocks.
    pub fn manifest(&self) -> PathBuf {
        self.path.join("manifest.json")
    }

    /// Enough to clean up after any crash.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// What was done, planned against achieved, and what happened.
    pub fn timeline(&self) -> PathBuf {
        self.path.join("timeline.jsonl")
    }

    /// Every operation.
    pub fn operations(&self) -> PathBuf {
        self.path.join("ops.parquet")
    }

    /// Every delivery of a message.
    pub fn deliveries(&self) -> PathBuf {
        self.path.join("deliveries.parquet")
    }

    /// Every node's counters over time.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples.parquet")
    }

    /// All nodes' histograms, merged, by interval.
    pub fn histograms(&self) -> PathBuf {
        self.path.join("histograms.hlog")
    }

    /// The verdict.
    pub fn verdict(&self) -> PathBuf {
        self.path.join("verdict.json")
    }

    /// The report for people.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// What nodes and agents logged.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// What one node logged, over all of its lives.
    pub fn log(&self, host: &str, node: NodeIndex) -> PathBuf {
        self.logs().join(path_name(host)).join(format!("{node}.log"))
    }

    /// Adds to what one node logged.
    ///
    /// # Errors
    /// [`RecordError::File`] where it cannot be written.
    pub fn append_log(&self, host: &str, node: NodeIndex, text: &str) -> Result<(), RecordError> {
        make(&self.logs().join(path_name(host)))?;
        let path = self.log(host, node);
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| writeln!(file, "{}", text.trim_end())).map_err(|source| RecordError::File {
            doing: "write",
            path,
            source,
        })
    }
}

/// A name as one component of a path, whatever is in it.
fn path_name(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.chars().take(NAME_CHARACTERS_MAX).map(safe).collect();
    match name.trim_start_matches('.') {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}

fn make(path: &Path) -> Result<(), RecordError> {
    fs::create_dir_all(path).map_err(|source| RecordError::File {
        doing: "create",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::plan;

    #[test]
    fn two_runs_within_a_second_have_two_directories() {
        let root = tempfile::tempdir().unwrap();
        let start: Timestamp = "2026-04-13T09:05:58.7Z".parse().unwrap();
        let paths: Vec<_> = (0..3)
            .map(|_| RunDirectory::create_at(root.path(), &plan(), start).unwrap().path().to_owned())
            .collect();
        let expected = ["20260413T090558Z-7", "20260413T090558Z-7-2", "20260413T090558Z-7-3"];
        assert_eq!(paths, expected.map(|name| root.path().join("test").join(name)));
        assert!(paths[2].join("logs").is_dir());
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_root() {
        for (name, path) in [("../../etc", "-..-etc"), ("", "unnamed"), ("..", "unnamed"), ("a b/c", "a-b-c")]
        {
            assert_eq!(path_name(name), path);
        }
    }

    #[test]
    fn a_directory_without_a_plan_is_no_run_directory() {
        let root = tempfile::tempdir().unwrap();
        let error = RunDirectory::open(root.path()).unwrap_err();
        assert!(error.to_string().ends_with("is no run directory: it has no plan.yaml"), "{error}");
        fs::write(root.path().join("plan.yaml"), "").unwrap();
        assert!(RunDirectory::open(root.path()).is_ok());
    }
}
